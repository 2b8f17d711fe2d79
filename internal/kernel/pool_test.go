package kernel

import (
	"sync/atomic"
	"testing"
)

func TestPoolFor(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 2, 3, 8} {
		p := NewPool(threads)
		inside := make([]atomic.Int32, threads)
		for _, n := range []int{0, 1, 2, 7, 1000} {
			calls := make([]atomic.Int32, n)
			p.For(n, func(i, worker int) {
				if inside[worker].Add(1) != 1 {
					t.Errorf("worker %d was called while it worked", worker)
				}
				calls[i].Add(1)
				inside[worker].Add(-1)
			})
			for i := range calls {
				if c := calls[i].Load(); c != 1 {
					t.Errorf("%d threads, n = %d: %d was called %d times", threads, n, i, c)
				}
			}
		}
		p.Close()
		p.Close()
		n := 0
		p.For(5, func(int, int) { n++ })
		if n != 5 {
			t.Errorf("after Close: %d calls of 5", n)
		}
	}
}

func TestPoolPanic(t *testing.T) {
	t.Parallel()
	p := NewPool(3)
	defer p.Close()
	for round := range 20 {
		func() {
			defer func() {
				if r := recover(); r != round {
					t.Errorf("round %d: recovered %v", round, r)
				}
			}()
			p.For(50, func(i, _ int) {
				if i == 2*round {
					panic(round)
				}
			})
		}()
	}
}
