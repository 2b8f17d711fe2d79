package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/shardfile"
)

// WriteOptions says how a model is laid out and where it may be written. The zero
// value is one file that replaces nothing.
type WriteOptions struct {
	Force bool // replace existing files

	// MaxTensors and MaxSize, if not 0, split the model: no shard has more tensors,
	// or more bytes of tensor data (padded, without header) unless one tensor alone has.
	// At most one of them may be set.
	MaxTensors int
	MaxSize    int64
	// NoTensorFirst makes the first shard of a split model hold only the metadata.
	NoTensorFirst bool
	// ShardTensors, if not nil, says how many tensors each shard has; none of the
	// options above may be set beside it but Force.
	ShardTensors []int
}

// maxAlignment is the largest alignment that is written: a page of any machine.
const maxAlignment = 1 << 16

// Layout is where everything stands in the files that a plan becomes. It is known
// before any tensor is made.
type Layout struct {
	Shards []ShardLayout // one, or those of a split model
}

// ShardLayout is the layout of one file: its path, its header, where each tensor
// begins, its size.
type ShardLayout = shardfile.Shard

// Size is the number of bytes of all files.
func (l *Layout) Size() int64 {
	var n int64
	for _, s := range l.Shards {
		n += s.Size
	}
	return n
}

// LayoutOf computes the layout of plan under path with the metadata meta (which
// may hold general.alignment, and may not hold keys of a split). A model that is
// split gets shards named as [ShardPath] says, path without its .gguf being the prefix.
func LayoutOf(path string, meta *Meta, plan *format.Plan, opt WriteOptions) (*Layout, error) {
	alignment, err := checkMeta(meta)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := checkPlan(plan); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	groups, err := cut(plan, alignment, opt)
	if err != nil {
		return nil, err
	}
	if len(groups) == 1 {
		s, err := layoutShard(path, meta, plan, groups[0], alignment)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &Layout{Shards: []ShardLayout{s}}, nil
	}
	if len(groups) > math.MaxUint16 {
		return nil, format.Usagef("%s: %d shards are more than the %d that a split model can have", path, len(groups), math.MaxUint16)
	}
	l := &Layout{}
	for i, g := range groups {
		m := &Meta{}
		if i == 0 {
			m = meta.Clone()
		} else if meta.Has(keyAlignment) {
			m.Set(keyAlignment, uint32(alignment)) // each file is laid out by its own metadata
		}
		// llama-gguf-split sets the count last; llama-quantize, which keeps shards as
		// they are, sets it second.
		m.Set(keySplitNo, uint16(i))
		if opt.ShardTensors != nil {
			m.Set(keySplitCount, uint16(len(groups)))
		}
		m.Set(keySplitTensors, int32(len(plan.Outputs)))
		m.Set(keySplitCount, uint16(len(groups)))
		name := ShardPath(strings.TrimSuffix(path, ".gguf"), i, len(groups))
		s, err := layoutShard(name, m, plan, g, alignment)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.Shards = append(l.Shards, s)
	}
	return l, nil
}

// checkMeta holds the metadata to the rules of both the specification and the
// reference reader, and returns the alignment.
func checkMeta(meta *Meta) (alignment int64, err error) {
	for _, kv := range meta.All() {
		switch {
		case kv.Key == "" || !utf8.ValidString(kv.Key):
			return 0, fmt.Errorf("metadata key %q cannot be written", kv.Key)
		case len(kv.Key) > math.MaxUint16:
			return 0, fmt.Errorf("metadata key of %d bytes", len(kv.Key))
		}
		if n := arrayLen(kv.Value); n > maxElements {
			return 0, fmt.Errorf("metadata %s: %d elements exceed %d", kv.Key, n, maxElements)
		}
	}
	v, ok := meta.Get(keyAlignment)
	if !ok {
		return defaultAlignment, nil
	}
	a, ok := v.(uint32)
	if !ok || a < 8 || a > maxAlignment || a&(a-1) != 0 {
		return 0, fmt.Errorf("metadata %s: %v is not a u32 power of two from 8 to %d", keyAlignment, v, maxAlignment)
	}
	return int64(a), nil
}

func checkPlan(plan *format.Plan) error {
	seen := make(map[string]bool, len(plan.Outputs))
	for _, o := range plan.Outputs {
		switch {
		case o.Name == "" || len(o.Name) > maxNameBytes || !utf8.ValidString(o.Name) || strings.IndexByte(o.Name, 0) >= 0:
			return fmt.Errorf("tensor name %q cannot be written to GGUF (1 to %d bytes of UTF-8)", o.Name, maxNameBytes)
		case seen[o.Name]:
			return fmt.Errorf("two tensors are called %q", o.Name)
		case len(o.Shape) > maxDims:
			return format.Unsupported("tensor %s: %d dimensions in GGUF, which has at most %d", o.Name, len(o.Shape), maxDims)
		case !o.Type.GGML():
			return format.Unsupported("tensor %s: type %v in GGUF", o.Name, o.Type)
		}
		seen[o.Name] = true
		n, err := format.Elements(o.Shape)
		cols := int64(1)
		if len(o.Shape) > 0 {
			cols = o.Shape[len(o.Shape)-1]
		}
		if err == nil {
			_, err = o.Type.RowBytes(cols)
		}
		var size int64
		if err == nil {
			size, err = o.Type.RowBytes(n)
		}
		if err == nil && size != o.Size() {
			err = fmt.Errorf("the plan makes %d bytes where its shape %v needs %d", o.Size(), o.Shape, size)
		}
		if err != nil {
			return fmt.Errorf("tensor %s: %w", o.Name, err)
		}
	}
	return nil
}

// group is the range of a plan's outputs that goes into one shard.
type group struct{ begin, end int }

// cut divides the plan into shards as llama-gguf-split does.
func cut(plan *format.Plan, alignment int64, opt WriteOptions) ([]group, error) {
	n := len(plan.Outputs)
	if opt.ShardTensors != nil {
		return cutAs(n, opt)
	}
	if opt.MaxTensors < 0 || opt.MaxSize < 0 || opt.MaxTensors > 0 && opt.MaxSize > 0 {
		return nil, format.Usagef("a model is split by the number of tensors or by the size of a shard, one of them")
	}
	if opt.MaxTensors == 0 && opt.MaxSize == 0 {
		return []group{{0, n}}, nil
	}
	var groups []group
	if opt.NoTensorFirst {
		groups = append(groups, group{})
	}
	begin, size := 0, int64(0)
	for i, o := range plan.Outputs {
		padded, err := pad(o.Size(), alignment)
		if err != nil {
			return nil, err
		}
		full := opt.MaxTensors > 0 && i-begin == opt.MaxTensors ||
			opt.MaxSize > 0 && i > begin && padded > opt.MaxSize-size
		if full {
			groups = append(groups, group{begin, i})
			begin, size = i, 0
		}
		size += padded
	}
	return append(groups, group{begin, n}), nil
}

// cutAs divides n tensors as opt.ShardTensors says.
func cutAs(n int, opt WriteOptions) ([]group, error) {
	if opt.MaxTensors != 0 || opt.MaxSize != 0 || opt.NoTensorFirst {
		return nil, format.Usagef("the tensors of each shard are given: nothing else can divide the model")
	}
	var groups []group
	begin := 0
	for _, k := range opt.ShardTensors {
		if k < 0 || k > n-begin {
			return nil, format.Usagef("shards of %v tensors, of which there are %d", opt.ShardTensors, n)
		}
		groups = append(groups, group{begin, begin + k})
		begin += k
	}
	if begin != n || len(groups) == 0 {
		return nil, format.Usagef("shards of %v tensors, of which there are %d", opt.ShardTensors, n)
	}
	return groups, nil
}

func layoutShard(path string, meta *Meta, plan *format.Plan, g group, alignment int64) (ShardLayout, error) {
	outputs := plan.Outputs[g.begin:g.end]
	s := ShardLayout{Path: path, First: g.begin, Offsets: make([]int64, len(outputs))}
	var sum int64
	var err error
	for i, o := range outputs {
		s.Offsets[i] = sum
		if sum, err = add(sum, o.Size()); err == nil {
			sum, err = pad(sum, alignment)
		}
		if err != nil {
			return s, fmt.Errorf("tensor %s: %w", o.Name, err)
		}
	}
	h := appendHeader(nil, meta, outputs, s.Offsets)
	s.Header = append(h, make([]byte, -len(h)&int(alignment-1))...)
	for i := range s.Offsets {
		s.Offsets[i] += int64(len(s.Header))
	}
	s.Size, err = add(sum, int64(len(s.Header)))
	return s, err
}

func appendHeader(b []byte, meta *Meta, outputs []*format.Output, offsets []int64) []byte {
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint32(b, 3)
	b = le.AppendUint64(b, uint64(len(outputs)))
	b = le.AppendUint64(b, uint64(meta.Len()))
	for _, kv := range meta.All() {
		b = appendString(b, kv.Key)
		t, elem, _ := TypeOf(kv.Value)
		b = le.AppendUint32(b, uint32(t))
		if t == Array {
			b = le.AppendUint32(b, uint32(elem))
		}
		b = appendValue(b, kv.Value)
	}
	for i, o := range outputs {
		b = appendString(b, o.Name)
		b = le.AppendUint32(b, uint32(len(o.Shape)))
		for _, d := range slices.Backward(o.Shape) {
			b = le.AppendUint64(b, uint64(d))
		}
		b = le.AppendUint32(b, uint32(o.Type))
		b = le.AppendUint64(b, uint64(offsets[i]))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// appendValue appends a value; for an array its length and elements.
func appendValue(b []byte, v Value) []byte {
	le := binary.LittleEndian
	switch v := v.(type) {
	case uint8:
		return append(b, v)
	case int8:
		return append(b, uint8(v))
	case uint16:
		return le.AppendUint16(b, v)
	case int16:
		return le.AppendUint16(b, uint16(v))
	case uint32:
		return le.AppendUint32(b, v)
	case int32:
		return le.AppendUint32(b, uint32(v))
	case float32:
		return le.AppendUint32(b, math.Float32bits(v))
	case bool:
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case string:
		return appendString(b, v)
	case uint64:
		return le.AppendUint64(b, v)
	case int64:
		return le.AppendUint64(b, uint64(v))
	case float64:
		return le.AppendUint64(b, math.Float64bits(v))
	case []uint8:
		return appendArray(b, v)
	case []int8:
		return appendArray(b, v)
	case []uint16:
		return appendArray(b, v)
	case []int16:
		return appendArray(b, v)
	case []uint32:
		return appendArray(b, v)
	case []int32:
		return appendArray(b, v)
	case []float32:
		return appendArray(b, v)
	case []bool:
		return appendArray(b, v)
	case []string:
		return appendArray(b, v)
	case []uint64:
		return appendArray(b, v)
	case []int64:
		return appendArray(b, v)
	case []float64:
		return appendArray(b, v)
	}
	panic("gguf: Meta holds a value of no type")
}

func appendArray[T any](b []byte, v []T) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(v)))
	for _, x := range v {
		b = appendValue(b, x)
	}
	return b
}

// arrayLen is the number of elements of an array, 0 for anything else.
func arrayLen(v Value) int {
	switch v := v.(type) {
	case []uint8:
		return len(v)
	case []int8:
		return len(v)
	case []uint16:
		return len(v)
	case []int16:
		return len(v)
	case []uint32:
		return len(v)
	case []int32:
		return len(v)
	case []float32:
		return len(v)
	case []bool:
		return len(v)
	case []string:
		return len(v)
	case []uint64:
		return len(v)
	case []int64:
		return len(v)
	case []float64:
		return len(v)
	}
	return 0
}
