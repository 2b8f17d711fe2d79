package gguf

import (
	"slices"
	"testing"

	"github.com/graft-lora/graft/format"
)

// TestShardTensors: shards of given numbers of tensors, one of them empty, and the
// keys of a split in the order of llama-quantize.
func TestShardTensors(t *testing.T) {
	t.Parallel()
	plan := &format.Plan{}
	for _, name := range []string{"a", "b", "c"} {
		plan.Outputs = append(plan.Outputs, &format.Output{Name: name, Type: format.F32, Shape: []int64{8}, Units: 1, UnitBytes: 32})
	}
	meta := &Meta{}
	meta.Set("general.name", "x")
	l, err := LayoutOf("m.gguf", meta, plan, WriteOptions{ShardTensors: []int{0, 2, 1}})
	if err != nil {
		t.Fatal(err)
	}
	var counts, firsts []int
	for _, s := range l.Shards {
		counts, firsts = append(counts, len(s.Offsets)), append(firsts, s.First)
	}
	if !slices.Equal(counts, []int{0, 2, 1}) || !slices.Equal(firsts, []int{0, 0, 2}) || l.Shards[2].Path != "m-00003-of-00003.gguf" {
		t.Errorf("%v tensors from %v on, last %s", counts, firsts, l.Shards[2].Path)
	}
	f, err := NewReader(headerOnly{l.Shards[0].Header}, l.Shards[0].Size, "first")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range f.Meta.All() {
		keys = append(keys, kv.Key)
	}
	if !slices.Equal(keys, []string{"general.name", keySplitNo, keySplitCount, keySplitTensors}) {
		t.Errorf("keys %v", keys)
	}
	for _, opt := range []WriteOptions{
		{ShardTensors: []int{1, 1}}, {ShardTensors: []int{4}}, {ShardTensors: []int{4, -1}}, {ShardTensors: []int{}},
		{ShardTensors: []int{3}, MaxTensors: 1}, {ShardTensors: []int{3}, NoTensorFirst: true},
	} {
		if _, err := LayoutOf("m.gguf", meta, plan, opt); err == nil {
			t.Errorf("%+v is accepted", opt)
		}
	}
}

// headerOnly reads a header.
type headerOnly struct{ b []byte }

func (h headerOnly) ReadAt(p []byte, off int64) (int, error) { return copy(p, h.b[off:]), nil }
