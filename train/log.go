package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// LogLine is a line of log.jsonl: one for each step, and one for each evaluation,
// which has Eval in place of the rest. Everything but Timing is the same whenever
// and wherever the run is made, interrupted or not.
type LogLine struct {
	Step        int               `json:"step"`
	Epoch       float64           `json:"epoch,omitempty"`       // times through the data, after the step
	Loss        float64           `json:"loss,omitempty"`        // mean over the trained tokens of the step, in nats, or over the examples of preferences
	LR          *float64          `json:"lr,omitempty"`          // rate of the step; may be 0
	GradNorm    float64           `json:"grad_norm,omitempty"`   // before clipping
	Trained     int               `json:"trained,omitempty"`     // trained tokens of the step
	Tokens      int               `json:"tokens,omitempty"`      // all tokens of the step
	Preferences *PreferenceResult `json:"preferences,omitempty"` // of objectives that learn from them
	Distill     *DistillResult    `json:"distill,omitempty"`     // where there is a teacher
	// Router is the loss of the routers of a mixture, without its weight and no part of Loss: the
	// mean over the trained tokens' sequences, where router_loss asks for it.
	Router float64 `json:"router_loss,omitempty"`
	// Growth is the norm of the change of each matrix after the step, at about 40 steps of a run.
	Growth  map[string]float64 `json:"growth,omitempty"`
	Eval    *EvalResult        `json:"eval,omitempty"`
	Samples []SampleText       `json:"samples,omitempty"` // what the model answered, with the evaluation or in place of it
	Timing  *Timing            `json:"timing,omitempty"`
}

// isStep says whether the line is that of a step.
func (l *LogLine) isStep() bool { return l.LR != nil }

// Timing is what differs between runs.
type Timing struct {
	Seconds         float64 `json:"seconds"`           // since this process began the run
	TokensPerSecond float64 `json:"tokens_per_second"` // of the step
	RSS             int64   `json:"rss"`               // resident memory, bytes; 0 where the system does not say
}

// runLog writes log.jsonl. Each line is given to the operating system at once.
type runLog struct {
	f    *os.File
	size int64
	t0   time.Time
}

// openLog opens a log and cuts it to size bytes, which are those that belong to the
// state that the run goes on from.
func openLog(path string, size int64) (*runLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = fmt.Errorf("%s has %d bytes, the checkpoint was made when it had %d", path, info.Size(), size)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &runLog{f: f, size: size, t0: time.Now()}, nil
}

func (l *runLog) write(line LogLine, tokensPerSecond float64) error {
	line.Timing = &Timing{Seconds: time.Since(l.t0).Seconds(), TokensPerSecond: tokensPerSecond, RSS: memory().rss}
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	n, err := l.f.Write(append(b, '\n'))
	l.size += int64(n)
	return err
}

// sync makes sure that what a checkpoint counts on is on the disk.
func (l *runLog) sync() error { return l.f.Sync() }

func (l *runLog) Close() error { return l.f.Close() }

// ReadLog reads a log.jsonl. A last line that was cut off by a kill is left out.
func ReadLog(path string) ([]LogLine, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []LogLine
	r := bufio.NewReader(bytes.NewReader(b))
	for n := 1; ; n++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		var line LogLine
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		lines = append(lines, line)
	}
}
