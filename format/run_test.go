package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// memorySink collects what a plan writes.
type memorySink struct {
	tensors [][]byte
	failAt  int // fails in the Write that takes the total to this; 0: never
	total   int
}

func (s *memorySink) Begin(i int) error {
	if i != len(s.tensors) {
		return fmt.Errorf("tensor %d begun as number %d", i, len(s.tensors))
	}
	s.tensors = append(s.tensors, nil)
	return nil
}

func (s *memorySink) Write(p []byte) (int, error) {
	s.total += len(p)
	if s.failAt > 0 && s.total >= s.failAt {
		return 0, errors.New("disk full")
	}
	last := len(s.tensors) - 1
	s.tensors[last] = append(s.tensors[last], p...)
	return len(p), nil
}

// testPlan has outputs of odd sizes whose bytes say where they belong.
func testPlan(delay time.Duration, inFlight, peak *atomic.Int64) *Plan {
	p := &Plan{}
	for i, units := range []int64{0, 1, 7, 1000, 3} {
		o := &Output{Name: fmt.Sprintf("t%d", i), Type: U8, Shape: []int64{units, 100}, Units: units, UnitBytes: 100, Cost: 400}
		o.Fill = func(dst []byte, unit int64) error {
			n := inFlight.Add(int64(len(dst)) * 5)
			for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
			}
			time.Sleep(delay)
			for j := range dst {
				dst[j] = byte(int64(i)*31 + (unit*100 + int64(j)))
			}
			inFlight.Add(-int64(len(dst)) * 5)
			return nil
		}
		p.Outputs = append(p.Outputs, o)
	}
	return p
}

func TestRunWritesInOrderWithinMemory(t *testing.T) {
	t.Parallel()
	var want [][]byte
	for i, c := range []struct {
		threads int
		memory  int64
	}{{1, 0}, {1, 500}, {2, 5000}, {4, 20000}, {8, 1}, {3, 0}} {
		var inFlight, peak atomic.Int64
		sink := &memorySink{}
		var last int64
		p := testPlan(0, &inFlight, &peak)
		err := Run(context.Background(), p, sink, RunOptions{Threads: c.threads, Memory: c.memory, Progress: func(done, total int64) {
			if done < last || total != p.Size() {
				t.Errorf("progress went from %d to %d of %d", last, done, total)
			}
			last = done
		}})
		if err != nil {
			t.Fatal(err)
		}
		if last != p.Size() {
			t.Errorf("progress ended at %d of %d", last, p.Size())
		}
		if c.memory > 500 && peak.Load() > c.memory {
			t.Errorf("%d threads, %d bytes allowed: %d in flight", c.threads, c.memory, peak.Load())
		}
		if i == 0 {
			want = sink.tensors
			continue
		}
		if len(sink.tensors) != len(want) {
			t.Fatalf("%d tensors, want %d", len(sink.tensors), len(want))
		}
		for j := range want {
			if !bytes.Equal(sink.tensors[j], want[j]) {
				t.Errorf("%d threads, %d bytes: tensor %d differs", c.threads, c.memory, j)
			}
		}
	}
}

func TestRunStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, breakPlan := range map[string]func(*Plan, *memorySink){
		"fill":    func(p *Plan, _ *memorySink) { p.Outputs[3].Fill = func([]byte, int64) error { return boom } },
		"prepare": func(p *Plan, _ *memorySink) { p.Outputs[3].Prepare = func(context.Context) error { return boom } },
		"finish":  func(p *Plan, _ *memorySink) { p.Outputs[3].Finish = func() error { return boom } },
		"write":   func(_ *Plan, s *memorySink) { s.failAt = 5000 },
	} {
		var inFlight, peak atomic.Int64
		p, sink := testPlan(0, &inFlight, &peak), &memorySink{}
		breakPlan(p, sink)
		err := Run(context.Background(), p, sink, RunOptions{Threads: 3, Memory: 10000})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if name != "write" && !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		if want := "tensor t3: "; err.Error()[:len(want)] != want {
			t.Errorf("%s: the error does not name the tensor: %v", name, err)
		}
	}
}

func TestRunStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	var inFlight, peak atomic.Int64
	p := testPlan(time.Millisecond, &inFlight, &peak)
	p.Outputs[3].Prepare = func(context.Context) error { cancel(); return nil }
	if err := Run(ctx, p, &memorySink{}, RunOptions{Threads: 2, Memory: 5000}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
