package model

import "testing"

// TestCosts counts by hand what a small model costs: 16 wide, two layers, 4 heads of 6
// with 2 pairs of keys and values, 24 in the middle, 29 words.
func TestCosts(t *testing.T) {
	t.Parallel()
	m := newModel(t, tiny{arch: "llama"}.model(), Options{Threads: 1})
	const (
		q, kv, o, up = 16 * 24, 16 * 12, 24 * 16, 16 * 24
		layer        = q + 2*kv + o + 3*up
		head         = 16 * 29
		tokens, seen = 5 + 3, 15 + 6
	)
	lens := []int{5, 3}
	none := map[string]int{}
	check := func(what string, got Operations, frozen, lowRank, attention float64) {
		t.Helper()
		if want := (Operations{Frozen: frozen, LowRank: lowRank, Attention: attention}); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	forward := float64(2 * seen * 2 * 4 * 12)
	check("forward", m.Costs(none, Options{}, false).Of(lens, 4), 2*(tokens*2*layer+4*head), 0, forward)

	// A pair of rank 3 on the second layer's query: what is below has no gradient.
	ranks := map[string]int{"blk.1.attn_q.weight": 3}
	kept := Options{KeepLayers: -1}
	back := float64(2 * seen * 4 * (3*6 + 2*6))
	check("one pair", m.Costs(ranks, kept, true).Of(lens, 4),
		2*(tokens*(2*layer+3*24)+tokens*(o+3*up)+2*4*head), 2*3*tokens*(16+2*24+16), forward+back)

	// One on the first layer's query, which runs again but for its last product.
	ranks = map[string]int{"blk.0.attn_q.weight": 3}
	check("run again", m.Costs(ranks, Options{}, true).Of(lens, 4),
		2*(tokens*(2*layer+3*24)+tokens*(layer-up+3*24)+tokens*(layer+o+3*up)+2*4*head), 2*3*tokens*(2*16+2*24+16), 1.5*forward+2*back)
	if got := m.Costs(ranks, Options{KeepAttention: true}, true).Of(lens, 4)[Attention]; got != forward+2*back {
		t.Errorf("attention that is kept costs %v, want %v", got, forward+2*back)
	}
	if got := seenIn(7, 3); got != 1+2+3+3+3+3+3 {
		t.Errorf("seven queries with a window of three see %v keys", got)
	}
}
