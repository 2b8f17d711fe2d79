package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/shardfile"
)

// WriteOptions says how tensors are laid out. The zero value is what the reference
// implementation does, in files that replace nothing.
type WriteOptions struct {
	Force bool // replace existing files
	// PlanOrder keeps the tensors in the order of the plan. Otherwise the plan is
	// put into the reference's order: dtypes from the widest to the narrowest, names
	// ascending within one; of a folder with several files, within each file.
	PlanOrder bool
	// MetadataKeys is the order of the metadata; keys it does not name follow in
	// ascending order.
	MetadataKeys []string
	// MaxShardSize, if not 0, divides what CreateDir writes into files of no more
	// bytes of data than that, unless one tensor alone has more.
	MaxShardSize int64
}

// Layout is where everything stands in the files that a plan becomes. It is known
// before any tensor is made.
type Layout struct {
	Shards []ShardLayout
	Index  []byte // model.safetensors.index.json, nil for a single file
}

// ShardLayout is the layout of one file: its path, its header, where each tensor
// begins, its size.
type ShardLayout = shardfile.Shard

// Size is the number of bytes of all files.
func (l *Layout) Size() int64 {
	n := int64(len(l.Index))
	for _, s := range l.Shards {
		n += s.Size
	}
	return n
}

// LayoutOf computes the layout of a single file at path. Unless opt keeps the
// order of the plan, it sorts plan.Outputs.
func LayoutOf(path string, plan *format.Plan, metadata map[string]string, opt WriteOptions) (*Layout, error) {
	if err := checkPlan(plan, metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := layoutShard(path, plan.Outputs, 0, metadata, opt)
	if err != nil {
		return nil, err
	}
	return &Layout{Shards: []ShardLayout{s}}, nil
}

// LayoutOfDir computes the layout of the folder dir: model.safetensors, or several
// numbered files and their index when opt.MaxShardSize divides the plan, which it
// does in the order of the plan.
func LayoutOfDir(dir string, plan *format.Plan, metadata map[string]string, opt WriteOptions) (*Layout, error) {
	if opt.MaxShardSize < 0 {
		return nil, format.Usagef("the size of a shard is negative")
	}
	cuts := cut(plan, opt.MaxShardSize)
	if len(cuts) == 1 {
		return LayoutOf(filepath.Join(dir, singleName), plan, metadata, opt)
	}
	if err := checkPlan(plan, metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	l := &Layout{}
	where := map[string]string{}
	begin := 0
	for i, end := range cuts {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(cuts))
		outputs := plan.Outputs[begin:end]
		s, err := layoutShard(filepath.Join(dir, name), outputs, begin, metadata, opt)
		if err != nil {
			return nil, err
		}
		l.Shards = append(l.Shards, s)
		for _, o := range outputs {
			where[o.Name] = name
		}
		begin = end
	}
	l.Index = appendIndex(nil, plan.Size(), where)
	return l, nil
}

// cut divides the plan into shards and returns where each ends.
func cut(plan *format.Plan, limit int64) (ends []int) {
	var size int64
	for i, o := range plan.Outputs {
		if limit > 0 && size > 0 && o.Size() > limit-size {
			ends = append(ends, i)
			size = 0
		}
		size += o.Size()
	}
	return append(ends, len(plan.Outputs))
}

func checkPlan(plan *format.Plan, metadata map[string]string) error {
	for k, v := range metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("metadata %q is not UTF-8", k)
		}
	}
	seen := make(map[string]bool, len(plan.Outputs))
	for _, o := range plan.Outputs {
		switch {
		case !utf8.ValidString(o.Name) || o.Name == metadataKey:
			return fmt.Errorf("tensor name %q cannot be written to safetensors", o.Name)
		case seen[o.Name]:
			return fmt.Errorf("two tensors are called %q", o.Name)
		}
		seen[o.Name] = true
		if _, ok := rankOf[o.Type]; !ok {
			return format.Unsupported("tensor %s: type %v in safetensors files", o.Name, o.Type)
		}
		n, err := format.Elements(o.Shape)
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

// layoutShard lays out outputs, numbered from first on, and sorts them if opt says so.
func layoutShard(path string, outputs []*format.Output, first int, metadata map[string]string, opt WriteOptions) (ShardLayout, error) {
	if !opt.PlanOrder {
		slices.SortFunc(outputs, func(a, b *format.Output) int {
			return cmp.Or(cmp.Compare(rankOf[b.Type], rankOf[a.Type]), strings.Compare(a.Name, b.Name))
		})
	}
	s := ShardLayout{Path: path, First: first, Offsets: make([]int64, len(outputs))}
	h := make([]byte, 8, 1<<10)
	h = append(h, '{')
	if len(metadata) > 0 {
		h = appendMetadata(h, metadata, opt.MetadataKeys)
	}
	var sum int64
	for i, o := range outputs {
		if o.Size() > math.MaxInt64-maxHeader-8-sum {
			return s, fmt.Errorf("%s: tensor %s: the size of the file overflows", path, o.Name)
		}
		s.Offsets[i] = sum
		if len(h) > 9 {
			h = append(h, ',')
		}
		h = appendTensor(h, o, sum, sum+o.Size())
		sum += o.Size()
	}
	h = append(h, '}')
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	if len(h)-8 > maxHeader {
		return s, format.Unsupported("%s: a header of %d bytes, more than readers accept; divide the model into shards", path, len(h)-8)
	}
	binary.LittleEndian.PutUint64(h, uint64(len(h)-8))
	for i := range s.Offsets {
		s.Offsets[i] += int64(len(h))
	}
	s.Header, s.Size = h, int64(len(h))+sum
	return s, nil
}

func appendMetadata(b []byte, metadata map[string]string, order []string) []byte {
	rest := maps.Clone(metadata)
	var keys []string
	for _, k := range order {
		if _, ok := rest[k]; ok {
			keys = append(keys, k)
			delete(rest, k)
		}
	}
	keys = append(keys, slices.Sorted(maps.Keys(rest))...)
	b = append(appendJSON(b, metadataKey), ":{"...)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, k), ':')
		b = appendJSON(b, metadata[k])
	}
	return append(b, '}')
}

func appendTensor(b []byte, o *format.Output, begin, end int64) []byte {
	b = appendJSON(b, o.Name)
	b = append(b, `:{"dtype":"`...)
	b = append(b, dtypes[rankOf[o.Type]].name...)
	b = append(b, `","shape":[`...)
	for i, d := range o.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	return fmt.Appendf(b, `],"data_offsets":[%d,%d]}`, begin, end)
}
