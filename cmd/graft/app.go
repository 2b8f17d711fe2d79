package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/graft-lora/graft/format"
)

// app is what every command has: where to write, and the flags that all share.
type app struct {
	out, err io.Writer
	json     bool
	quiet    bool
	noSync   bool
	threads  int

	mu         sync.Mutex // of the progress line: several goroutines report
	status     string     // the progress line on a terminal, "" if there is none
	statusTime time.Time
}

// printJSON writes v as the command's one JSON document.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say writes words for people to standard error, unless --quiet.
func (a *app) say(f string, args ...any) {
	if !a.quiet {
		a.endStatus()
		fmt.Fprintf(a.err, f+"\n", args...)
	}
}

// result writes the command's answer for people: to standard output, unless --json
// made the answer a document.
func (a *app) result(f string, args ...any) {
	if !a.json {
		a.endStatus()
		fmt.Fprintf(a.out, f+"\n", args...)
	}
}

// table writes rows with aligned columns, the first row as a heading; numbers are
// the caller's to format.
func (a *app) table(rows [][]string) {
	if a.json {
		return
	}
	a.endStatus()
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// progress rewrites the one progress line of a terminal, at most ten times a
// second. Where standard error is no terminal, it writes nothing: a log is not filled with them.
func (a *app) progress(f string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet || !isTerminal(a.err) || time.Since(a.statusTime) < 100*time.Millisecond {
		return
	}
	a.statusTime = time.Now()
	line := fmt.Sprintf(f, args...)
	pad := max(len(a.status)-len(line), 0)
	fmt.Fprintf(a.err, "\r%s%s", line, strings.Repeat(" ", pad))
	a.status = line
}

// endStatus clears the progress line.
func (a *app) endStatus() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status != "" {
		fmt.Fprintf(a.err, "\r%s\r", strings.Repeat(" ", len(a.status)))
		a.status = ""
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// runOptions are the runner's, with progress on the terminal.
func (a *app) runOptions(verb string, memory int64) format.RunOptions {
	return format.RunOptions{Threads: a.threads, Memory: memory, Progress: func(done, total int64) {
		a.progress("%s %3.0f%%  %s of %s", verb, 100*float64(done)/float64(max(total, 1)), size(done), size(total))
	}}
}

// size prints a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// count prints a large number for people: 134,515,008.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (a *app) setThreads() error {
	if a.threads < 0 {
		return format.Usagef("--threads %d: a positive number, or 0 for all cores", a.threads)
	}
	if a.threads > 0 {
		runtime.GOMAXPROCS(a.threads)
	} else {
		a.threads = runtime.GOMAXPROCS(0)
	}
	return nil
}
