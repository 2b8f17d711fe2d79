package kernel

import (
	"runtime"
	"sync/atomic"
)

// Pool runs loops on a fixed number of goroutines, the caller's among them. It
// serves one loop or one product at a time: it must not be used from two goroutines
// at once, nor from inside a loop of its own (give products a nil pool there). Such
// use panics.
type Pool struct {
	threads int
	wake    []chan struct{} // one for each goroutine beside the caller
	done    chan struct{}
	busy    atomic.Bool

	// The loop that runs now: written before the workers are woken, read by them.
	f       func(i, worker int)
	n       int64
	next    atomic.Int64
	left    atomic.Int64 // helpers that have not finished
	failure atomic.Pointer[any]

	product product // the product that runs now, so that a call allocates nothing
	scratch []*scratch
	step    func(i, worker int)
}

// NewPool makes a pool of that many threads; 0 or less means one for each processor
// that Go may use. Its goroutines sleep between loops until Close.
func NewPool(threads int) *Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{threads: threads, done: make(chan struct{}, 1)}
	p.step = func(i, worker int) { p.product.step(&p.product, i, p.scratch[worker]) }
	for w := range threads {
		p.scratch = append(p.scratch, new(scratch))
		if w == 0 {
			continue
		}
		c := make(chan struct{}, 1)
		p.wake = append(p.wake, c)
		go func() {
			for range c {
				p.work(w)
				if p.left.Add(-1) == 0 {
					p.done <- struct{}{}
				}
			}
		}()
	}
	return p
}

// Threads is the number of workers; worker numbers are below it. A nil pool has one.
func (p *Pool) Threads() int {
	if p == nil {
		return 1
	}
	return p.threads
}

// For calls f for each i below n, some of them at once, and returns when all have
// returned. worker says which of the pool's goroutines makes the call, for scratch
// memory: calls with the same worker never overlap. Which worker gets which i is not
// fixed, so results must not depend on it. When f panics, For panics with that value
// after the other workers have stopped. On a nil pool the calls are made in order.
func (p *Pool) For(n int, f func(i, worker int)) {
	if p == nil {
		for i := range n {
			f(i, 0)
		}
		return
	}
	p.acquire()
	defer p.release()
	p.loop(n, f)
}

func (p *Pool) acquire() {
	if p.busy.Swap(true) {
		panic("kernel: a pool was used while a loop of the same pool runs")
	}
}

func (p *Pool) release() { p.busy.Store(false) }

// loop is For between acquire and release.
func (p *Pool) loop(n int, f func(i, worker int)) {
	helpers := min(p.threads, n) - 1
	if helpers <= 0 {
		for i := range n {
			f(i, 0)
		}
		return
	}
	p.f, p.n = f, int64(n)
	p.next.Store(0)
	p.left.Store(int64(helpers))
	for _, c := range p.wake[:helpers] {
		c <- struct{}{}
	}
	p.work(0)
	<-p.done
	p.f = nil
	if failure := p.failure.Swap(nil); failure != nil {
		panic(*failure)
	}
}

// work takes indices until none is left.
func (p *Pool) work(worker int) {
	defer func() {
		if r := recover(); r != nil {
			failure := r
			p.next.Store(p.n)
			p.failure.Store(&failure)
		}
	}()
	for {
		i := p.next.Add(1) - 1
		if i >= p.n {
			return
		}
		p.f(int(i), worker)
	}
}

// Close ends the pool's goroutines. It may be called again, and on a nil pool; the
// pool still works afterwards, on the caller's goroutine alone.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	for _, c := range p.wake {
		close(c)
	}
	p.wake, p.threads = nil, 1
}
