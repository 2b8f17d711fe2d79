package main

import (
	"testing"

	"github.com/graft-lora/graft/train/data"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	var all []data.Sample
	for i := range 100 {
		all = append(all, data.Sample{IDs: make([]int32, 10), Lines: []int{i}})
	}
	some := spread(all, 200)
	if len(some) != 20 || some[0].Lines[0] != 0 || some[1].Lines[0] != 5 || some[19].Lines[0] != 95 {
		t.Errorf("%d samples: %v", len(some), some)
	}
	if got := spread(all, 1000); len(got) != 100 {
		t.Errorf("of few samples there are %d", len(got))
	}
	if got := spread(all[:1], 3); len(got) != 1 {
		t.Errorf("of one long sample there are %d", len(got))
	}
}
