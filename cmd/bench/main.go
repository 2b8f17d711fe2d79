// Command bench measures graft on this machine and prints a table: kernels against
// the core's measured peak, codecs against its copying speed, training steps, and
// whole commands with their peak memory. make bench runs it.
//
//	bench [-model FILE.gguf] [-json FILE] [-run kernels,codecs,train,commands,survival,survival-table,merge,fit,quant,stream]
//
// Figures of different machines do not compare; shares and ratios do.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/graft-lora/graft/internal/cpu"
)

// figure is one measured line.
type figure struct {
	Group string  `json:"group"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Share float64 `json:"share,omitempty"` // of what the machine can do, 0 to 1
	Of    string  `json:"of,omitempty"`    // what the share is of
}

type report struct {
	CPU     string   `json:"cpu"`
	Cores   int      `json:"cores"`
	Tier    string   `json:"tier"`
	Figures []figure `json:"figures"`
}

func main() {
	model := flag.String("model", "", "GGUF model for the training and command figures; the embedded one if empty")
	jsonPath := flag.String("json", "", "write the figures to this file, too")
	run := flag.String("run", "kernels,codecs,train,commands", "groups to measure")
	threads := flag.Int("threads", runtime.GOMAXPROCS(0), "threads of the training figures")
	var q quantizeOptions
	flag.IntVar(&q.layers, "quant-layers", 2, fmt.Sprintf("layers of the model that is quantized; %d make 1.1 billion parameters", wholeLayers))
	flag.IntVar(&q.experts, "quant-experts", 0, "experts of each of its layers, an eighth of the size of its dense ones; 0: none")
	flag.StringVar(&q.types, "quant-types", allFileTypes, "file types to quantize to")
	flag.IntVar(&q.rounds, "quant-rounds", 2, "how often each is run; the shortest time counts")
	var big streamOptions
	flag.IntVar(&big.layers, "stream-layers", bigLayers, "layers of the model that is streamed; all of them make 8 billion parameters, 4.5 GB")
	flag.IntVar(&big.context, "stream-context", 128, "tokens of the step on it")
	profile := flag.String("profile", "", "write a processor profile of it all to this file")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	r := &report{CPU: cpuName(), Cores: runtime.GOMAXPROCS(0), Tier: cpu.Current().String()}
	fmt.Printf("%s, %d cores, kernels %s\n", r.CPU, r.Cores, r.Tier)
	if err := measure(r, *run, *model, *threads, q, big); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	r.print()
	if *jsonPath != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(*jsonPath, append(b, '\n'), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

func measure(r *report, groups, model string, threads int, q quantizeOptions, big streamOptions) error {
	for _, g := range strings.Split(groups, ",") {
		var err error
		switch g {
		case "kernels":
			kernels(r)
		case "codecs":
			err = codecs(r)
		case "train":
			err = training(r, model, threads)
		case "commands":
			err = commands(r, model)
		case "quant":
			err = quantizing(r, q, threads)
		case "stream":
			err = streaming(r, big, threads)
		case "merge":
			err = merging(r, q.layers, q.rounds, threads)
		case "fit":
			err = fitting(r, q.layers, q.rounds, threads)
		case "survival":
			err = survival(model)
		case "survival-table":
			err = survivalTable()
		default:
			err = fmt.Errorf("no group is called %q", g)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *report) add(f figure) { r.Figures = append(r.Figures, f) }

func (r *report) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	group := ""
	for _, f := range r.Figures {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(w, "\n%s\t\t\n", group)
		}
		share := ""
		if f.Of != "" {
			share = fmt.Sprintf("%.0f %% of %s", 100*f.Share, f.Of)
		}
		fmt.Fprintf(w, "  %s\t%.4g %s\t%s\n", f.Name, f.Value, f.Unit, share)
	}
	w.Flush()
}

// best runs f several times for at least the given time in all and returns the
// shortest run in seconds: the one that other work on the machine disturbed least.
func best(atLeast time.Duration, f func()) float64 {
	f() // caches, pages, scratch
	shortest := time.Duration(1<<63 - 1)
	for begin := time.Now(); time.Since(begin) < atLeast; {
		t := time.Now()
		f()
		shortest = min(shortest, time.Since(t))
	}
	return shortest.Seconds()
}

func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for _, line := range strings.Split(string(b), "\n") {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}
