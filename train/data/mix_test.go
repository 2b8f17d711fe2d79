package data

import (
	"slices"
	"testing"
)

// TestMix counts how often the samples of files with weights come in epochs.
func TestMix(t *testing.T) {
	t.Parallel()
	parts := []Part{{Samples: 10, Weight: 1}, {Samples: 7, Weight: 0.5}, {Samples: 3, Weight: 2.4}, {Samples: 5, Weight: 0.001}}
	want := []int{10, 4, 7, 1}
	total := 0
	for i, p := range parts {
		if p.PerEpoch() != want[i] {
			t.Errorf("part %d has %d an epoch, want %d", i, p.PerEpoch(), want[i])
		}
		total += want[i]
	}
	count := make([]int, 25)
	for epoch := range 7 {
		inOrder, shuffled := Mix(parts, false, 3, epoch), Mix(parts, true, 3, epoch)
		if len(inOrder) != total || slices.Equal(inOrder, shuffled) || !slices.Equal(shuffled, Mix(parts, true, 3, epoch)) {
			t.Fatalf("epoch %d: %v, %v", epoch, inOrder, shuffled)
		}
		slices.Sort(shuffled)
		if sorted := slices.Sorted(slices.Values(inOrder)); !slices.Equal(sorted, shuffled) {
			t.Errorf("epoch %d: shuffled has others: %v, %v", epoch, sorted, shuffled)
		}
		if !slices.Equal(inOrder[:10], []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("epoch %d: the first file is %v", epoch, inOrder[:10])
		}
		for _, i := range inOrder {
			count[i]++
		}
	}
	// Seven epochs of four are four times all seven.
	for i := 10; i < 17; i++ {
		if count[i] != 4 {
			t.Errorf("sample %d of the half came %d times", i, count[i])
		}
	}
	for i := 17; i < 20; i++ {
		if count[i] != 16 && count[i] != 17 {
			t.Errorf("sample %d of weight 2.4 came %d times in 7 epochs", i, count[i])
		}
	}
	one := []Part{{Samples: 9, Weight: 1}}
	for epoch := range 3 {
		if !slices.Equal(Mix(one, true, 5, epoch), Order(9, true, 5, epoch)) {
			t.Error("a single file is not in its own order")
		}
	}
	if a, b := Mix(parts, true, 1, 0), Mix(parts, true, 2, 0); slices.Equal(a, b) {
		t.Error("the seed does not matter")
	}
}
