package kernel

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Pool runs loops on a fixed number of goroutines, the caller's among them. It
// serves one loop or one product at a time: it must not be used from two goroutines
// at once, nor from inside a loop of its own (give products a nil pool there). Such
// use panics.
//
// Waking a sleeping processor takes longer than many loops do, so that a worker
// watches for the next loop during spinTime before it sleeps, where there is a
// processor for each.
type Pool struct {
	threads int
	spins   bool      // there is a processor for each worker
	helpers []*helper // beside the caller
	busy    atomic.Bool
	quit    atomic.Bool

	// The loop that runs now, written while no helper is inside. round counts loops.
	f       func(i, worker int)
	n       int64
	round   atomic.Int64
	next    atomic.Int64
	failure atomic.Pointer[any]
	state   atomic.Int64  // helpers inside, and the bits below
	done    chan struct{} // where the last helper reports to a caller that sleeps

	product product // the product that runs now, so that a call allocates nothing
	scratch []*scratch
	step    func(i, worker int)
}

const (
	closed   = 1 << 32 // helpers may not enter the loop any more
	sleeping = 1 << 33 // the caller waits on done
	spinTime = 300 * time.Microsecond
)

// helper is a worker beside the caller.
type helper struct {
	asleep atomic.Bool
	wake   chan struct{}
}

// NewPool makes a pool of that many threads; 0 or less means one for each processor
// that Go may use. Its goroutines sleep between loops until Close.
func NewPool(threads int) *Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{threads: threads, spins: threads <= runtime.GOMAXPROCS(0), done: make(chan struct{}, 1)}
	p.state.Store(closed)
	p.step = func(i, worker int) { p.product.step(&p.product, i, p.scratch[worker]) }
	p.scratch = append(p.scratch, new(scratch))
	for w := 1; w < threads; w++ {
		h := &helper{wake: make(chan struct{}, 1)}
		p.helpers = append(p.helpers, h)
		p.scratch = append(p.scratch, new(scratch))
		go p.help(h, w)
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
	if p.threads == 1 || n <= 1 {
		for i := range n {
			f(i, 0)
		}
		return
	}
	p.f, p.n = f, int64(n)
	p.next.Store(0)
	p.state.Store(0)
	p.round.Add(1)
	for _, h := range p.helpers[:min(p.threads, n)-1] {
		h.rouse()
	}
	p.work(0)
	p.state.Or(closed) // who has not come by now need not
	if !p.wait(func() bool { return p.state.Load() == closed }) {
		if p.state.Or(sleeping) != closed {
			<-p.done
		}
	}
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

// help is the life of a helper.
func (p *Pool) help(h *helper, worker int) {
	for seen := int64(0); !p.quit.Load(); {
		if !p.wait(func() bool { return p.round.Load() != seen }) {
			h.asleep.Store(true)
			if p.round.Load() == seen || !h.asleep.CompareAndSwap(true, false) {
				<-h.wake
			}
		}
		seen = p.round.Load()
		if !p.enter() {
			continue
		}
		p.work(worker)
		if p.state.Add(-1) == closed|sleeping {
			p.done <- struct{}{}
		}
	}
}

// enter lets a helper into the loop unless it is closed.
func (p *Pool) enter() bool {
	for {
		s := p.state.Load()
		if s&closed != 0 {
			return false
		}
		if p.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// rouse wakes a helper that sleeps.
func (h *helper) rouse() {
	if h.asleep.Load() && h.asleep.CompareAndSwap(true, false) {
		h.wake <- struct{}{}
	}
}

// wait watches for ready, for spinTime at most, and says whether it came. It does not
// call the scheduler, which would be slower to come back than what is waited for.
func (p *Pool) wait(ready func() bool) bool {
	for range 50 {
		if ready() {
			return true
		}
		pause()
	}
	if !p.spins {
		return ready()
	}
	for start := time.Now(); time.Since(start) < spinTime; {
		for range 10 {
			if ready() {
				return true
			}
			pause()
		}
	}
	return ready()
}

// Close ends the pool's goroutines. It may be called again, and on a nil pool; the
// pool still works afterwards, on the caller's goroutine alone.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.quit.Store(true)
	p.round.Add(1)
	for _, h := range p.helpers {
		h.rouse()
	}
	p.helpers, p.threads = nil, 1
}
