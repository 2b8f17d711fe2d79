package format

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// RunOptions says how a plan is carried out. The zero value is good. No option
// changes a byte of the output.
type RunOptions struct {
	Threads int   // goroutines that make rows; 0 means GOMAXPROCS
	Memory  int64 // bytes in flight; 0 means 64 MiB. One unit is always allowed
	// Progress, if not nil, is told from one goroutine how many of the plan's bytes are written.
	Progress func(done, total int64)
}

const (
	defaultRunMemory = 64 << 20
	// What is made at a time: bytes that are copied, and bytes with their working memory,
	// which stay in a core's cache between reading and writing.
	copyTarget = 1 << 20
	workTarget = 512 << 10
)

// Run makes the tensors of p and writes them to w, in order. Blocks of rows are
// made in parallel and written in order; the bytes in flight, with the working
// memory of those who make them, stay within the memory budget (or one unit, if
// a unit is larger). It stops at the first error, which names the tensor.
func Run(ctx context.Context, p *Plan, w Sink, opt RunOptions) error {
	if opt.Threads <= 0 {
		opt.Threads = runtime.GOMAXPROCS(0)
	}
	if opt.Memory <= 0 {
		opt.Memory = defaultRunMemory
	}
	r := &runner{plan: p, sink: w, opt: opt, total: p.Size(), sem: semaphore.NewWeighted(opt.Memory)}
	return r.run(ctx)
}

type runner struct {
	plan  *Plan
	sink  Sink
	opt   RunOptions
	sem   *semaphore.Weighted
	total int64
	done  int64
	bytes scratch[byte]
}

// scratch keeps slices to use again. Several goroutines may share one.
type scratch[T any] struct{ pool sync.Pool }

// get gives n elements, of any value.
func (s *scratch[T]) get(n int) []T {
	if p, ok := s.pool.Get().(*[]T); ok && cap(*p) >= n {
		return (*p)[:n]
	}
	return make([]T, n)
}

// put takes back what get gave.
func (s *scratch[T]) put(x []T) { s.pool.Put(&x) }

var floats scratch[float32]

// WithRows reads rows and calls f with them: n floats, whole rows from row on, which are lent
// for the call.
func WithRows(rows RowReader, row, n int64, f func(x []float32) error) error {
	x := floats.get(int(n))
	defer floats.put(x)
	if _, ok := rows.(*storedRows); !ok {
		clear(x) // for those that add to what is there
	}
	if err := rows.ReadRows(x, row); err != nil {
		return err
	}
	return f(x)
}

// block is a run of units of one output on its way to the sink.
type block struct {
	out   int // index of the output
	unit  int64
	units int64
	cost  int64
	first bool // begins its output
	last  bool // ends it
	data  []byte
	ready chan struct{} // closed when data is filled
}

func (r *runner) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *block)
	queue := make(chan *block, 4*r.opt.Threads) // in file order
	g.Go(func() error {
		defer close(work)
		defer close(queue)
		return r.schedule(ctx, g, work, queue)
	})
	for range r.opt.Threads {
		g.Go(func() error { return r.fill(ctx, work) })
	}
	g.Go(func() error { return r.write(ctx, queue) })
	return g.Wait()
}

// schedule cuts the outputs into blocks, acquires their memory, and hands each to
// the writer's queue and to the workers. While an output is being made the next one that
// wants it is prepared, which one thread does.
func (r *runner) schedule(ctx context.Context, g *errgroup.Group, work, queue chan<- *block) error {
	next := 0 // the first output that nobody has begun to prepare
	prepare := func() <-chan error {
		for next < len(r.plan.Outputs) && r.plan.Outputs[next].Prepare == nil {
			next++
		}
		if next == len(r.plan.Outputs) {
			return nil
		}
		o, done := r.plan.Outputs[next], make(chan error, 1)
		next++
		g.Go(func() error {
			done <- o.Prepare(ctx)
			return nil
		})
		return done
	}
	prepared := prepare()
	for i, o := range r.plan.Outputs {
		if o.Prepare != nil {
			if err := <-prepared; err != nil {
				return fmt.Errorf("tensor %s: %w", o.Name, err)
			}
			prepared = prepare()
		}
		unitCost := o.UnitBytes + o.Cost
		for unit := int64(0); ; {
			n := min(r.unitsPerBlock(o, unitCost), o.Units-unit)
			b := &block{out: i, unit: unit, units: n, first: unit == 0, last: unit+n == o.Units,
				cost: min(n*unitCost, r.opt.Memory), ready: make(chan struct{})}
			if err := r.sem.Acquire(ctx, b.cost); err != nil {
				return err
			}
			select {
			case queue <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case work <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
			if unit += n; unit >= o.Units {
				break
			}
		}
	}
	return nil
}

func (r *runner) unitsPerBlock(o *Output, unitCost int64) int64 {
	if unitCost == 0 {
		return max(o.Units, 1)
	}
	n := max(copyTarget/unitCost, 1)
	if o.Cost > 0 {
		n = max(workTarget/unitCost, o.Together, 1)
	}
	// Several blocks must fit into the budget for the threads to work side by side.
	return max(min(n, r.opt.Memory/unitCost/int64(2*r.opt.Threads)), 1)
}

func (r *runner) fill(ctx context.Context, work <-chan *block) error {
	for b := range work {
		if err := ctx.Err(); err != nil {
			return err
		}
		o := r.plan.Outputs[b.out]
		b.data = r.bytes.get(int(b.units * o.UnitBytes))
		if b.units > 0 {
			if err := o.Fill(b.data, b.unit); err != nil {
				return fmt.Errorf("tensor %s: %w", o.Name, err)
			}
		}
		close(b.ready)
	}
	return nil
}

func (r *runner) write(ctx context.Context, queue <-chan *block) error {
	for b := range queue {
		select {
		case <-b.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		o := r.plan.Outputs[b.out]
		if b.first {
			if err := r.sink.Begin(b.out); err != nil {
				return fmt.Errorf("tensor %s: %w", o.Name, err)
			}
		}
		if _, err := r.sink.Write(b.data); err != nil {
			return fmt.Errorf("tensor %s: %w", o.Name, err)
		}
		if b.last && o.Finish != nil {
			if err := o.Finish(); err != nil {
				return fmt.Errorf("tensor %s: %w", o.Name, err)
			}
		}
		r.done += int64(len(b.data))
		r.bytes.put(b.data)
		b.data = nil
		r.sem.Release(b.cost)
		if r.opt.Progress != nil {
			r.opt.Progress(r.done, r.total)
		}
	}
	return nil
}
