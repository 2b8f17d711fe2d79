package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/graft-lora/graft/format"
)

// output is a tensor of a plan whose bytes are a function of its name.
func output(name string, typ format.Type, shape ...int64) *format.Output {
	o := &format.Output{Name: name, Type: typ, Shape: shape, Units: 1}
	n, err := format.Elements(shape)
	if err == nil {
		o.UnitBytes, err = typ.RowBytes(n)
	}
	if err != nil {
		panic(err)
	}
	o.Fill = func(dst []byte, unit int64) error {
		for i := range dst {
			dst[i] = byte(i*31) + name[i%len(name)]
		}
		return nil
	}
	return o
}

// TestRoundTrip writes metadata and tensors of all kinds and reads them back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := rapid.StringN(1, 40, 60)
	types := []format.Type{format.F32, format.F16, format.Q4_K, format.Q8_0, format.I8, format.F64, format.MXFP4, format.NVFP4, format.TQ1_0}
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		meta := &Meta{}
		if rapid.Bool().Draw(r, "aligned") {
			meta.Set(keyAlignment, uint32(8)<<rapid.IntRange(0, 5).Draw(r, "alignment"))
		}
		for range rapid.IntRange(0, 8).Draw(r, "keys") {
			key := names.Draw(r, "key")
			if !strings.HasPrefix(key, "split.") && key != keyAlignment {
				meta.Set(key, drawValue(r))
			}
		}
		plan := &format.Plan{}
		seen := map[string]bool{}
		for range rapid.IntRange(0, 6).Draw(r, "tensors") {
			name := names.Draw(r, "name")
			if seen[name] || strings.IndexByte(name, 0) >= 0 {
				continue
			}
			seen[name] = true
			typ := rapid.SampledFrom(types).Draw(r, "type")
			var shape []int64
			for i := range rapid.IntRange(0, 4).Draw(r, "dims") {
				_ = i
				shape = append(shape, rapid.Int64Range(0, 3).Draw(r, "dim"))
			}
			if len(shape) == 0 && typ.BlockSize() > 1 {
				shape = []int64{1}
			}
			if len(shape) > 0 {
				shape[len(shape)-1] *= int64(typ.BlockSize())
			}
			plan.Outputs = append(plan.Outputs, output(name, typ, shape...))
		}
		path := filepath.Join(dir, fmt.Sprint(n))
		n++
		w, err := Create(path, meta, plan, WriteOptions{})
		if err != nil {
			r.Fatal(err)
		}
		if err := format.Run(t.Context(), plan, w, format.RunOptions{}); err != nil {
			r.Fatal(err)
		}
		if err := w.Close(); err != nil {
			r.Fatal(err)
		}
		defer os.Remove(path)
		f, err := OpenShard(path)
		if err != nil {
			r.Fatal(err)
		}
		defer f.Close()
		compareAll(r, f, meta, plan)
		if f.Shards[0].Size != w.Layout().Size() || f.Shards[0].Trailing != 0 {
			r.Fatalf("the file has %d bytes, the layout said %d", f.Shards[0].Size, w.Layout().Size())
		}
	})
}

func drawValue(r *rapid.T) Value {
	return rapid.OneOf(
		rapid.Uint8().AsAny(), rapid.Int8().AsAny(), rapid.Uint16().AsAny(), rapid.Int16().AsAny(), rapid.Uint32().AsAny(),
		rapid.Int32().AsAny(), rapid.Float32().AsAny(), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.Uint64().AsAny(),
		rapid.Int64().AsAny(), rapid.Float64().AsAny(),
		rapid.SliceOf(rapid.Uint8()).AsAny(), rapid.SliceOf(rapid.Int8()).AsAny(), rapid.SliceOf(rapid.Uint16()).AsAny(),
		rapid.SliceOf(rapid.Int16()).AsAny(), rapid.SliceOf(rapid.Uint32()).AsAny(), rapid.SliceOf(rapid.Int32()).AsAny(),
		rapid.SliceOf(rapid.Float32()).AsAny(), rapid.SliceOf(rapid.Bool()).AsAny(), rapid.SliceOf(rapid.String()).AsAny(),
		rapid.SliceOf(rapid.Uint64()).AsAny(), rapid.SliceOf(rapid.Int64()).AsAny(), rapid.SliceOf(rapid.Float64()).AsAny(),
	).Draw(r, "value")
}

type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

func compareAll(t fataler, f *File, meta *Meta, plan *format.Plan) {
	if f.Meta.Len() != meta.Len() || len(f.Tensors) != len(plan.Outputs) {
		t.Fatalf("%d keys and %d tensors, want %d and %d", f.Meta.Len(), len(f.Tensors), meta.Len(), len(plan.Outputs))
	}
	for i, want := range meta.All() {
		got := f.Meta.All()[i]
		if fmt.Sprintf("%q %T %v", got.Key, got.Value, got.Value) != fmt.Sprintf("%q %T %v", want.Key, want.Value, want.Value) {
			t.Fatalf("metadata %v, want %v", got, want)
		}
	}
	for i, o := range plan.Outputs {
		x := f.Tensors[i]
		if x.Name != o.Name || x.Type != o.Type || fmt.Sprint(x.Shape) != fmt.Sprint(append([]int64{}, o.Shape...)) {
			t.Fatalf("tensor %s %v %v, want %s %v %v", x.Name, x.Type, x.Shape, o.Name, o.Type, o.Shape)
		}
		want := make([]byte, o.Size())
		o.Fill(want, 0)
		if !bytes.Equal(x.Bytes(), want) {
			t.Fatalf("tensor %s has other bytes", x.Name)
		}
	}
}

// TestSplit writes a split model in each way and reads it through each shard.
func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		opt  WriteOptions
		want []int // tensors in each shard
	}{
		{"by tensors", WriteOptions{MaxTensors: 2}, []int{2, 2, 1}},
		{"by tensors, none first", WriteOptions{MaxTensors: 3, NoTensorFirst: true}, []int{0, 3, 2}},
		{"by size", WriteOptions{MaxSize: 192}, []int{3, 1, 1}}, // 64+32+64, 256, 64
		{"all in one", WriteOptions{MaxTensors: 9}, []int{5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			meta := &Meta{}
			meta.Set("general.architecture", "test")
			plan := &format.Plan{Outputs: []*format.Output{output("a", format.F32, 16), output("b", format.F32, 1),
				output("c", format.F32, 9), output("d", format.F32, 64), output("e", format.F32, 2, 8)}}
			path := filepath.Join(t.TempDir(), "model.gguf")
			l := write(t, path, meta, plan, c.opt)
			if len(l.Shards) != len(c.want) {
				t.Fatalf("%d shards, want %d", len(l.Shards), len(c.want))
			}
			var total int64
			for i, s := range l.Shards {
				if len(s.Offsets) != c.want[i] {
					t.Errorf("shard %d has %d tensors, want %d", i+1, len(s.Offsets), c.want[i])
				}
				st, err := os.Stat(s.Path)
				if err != nil || st.Size() != s.Size {
					t.Errorf("%s: %v, layout %d", s.Path, err, s.Size)
				}
				total += s.Size
				f, err := Open(s.Path)
				if err != nil {
					t.Fatal(err)
				}
				compareAll(t, f, meta, plan)
				if len(f.Shards) != len(c.want) {
					t.Errorf("%d shards were opened", len(f.Shards))
				}
				f.Close()
			}
			if total != l.Size() {
				t.Errorf("layout of %d bytes, written %d", l.Size(), total)
			}
			if len(c.want) == 1 {
				return
			}
			one, err := OpenShard(l.Shards[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			defer one.Close()
			no, _ := one.Meta.Get(keySplitNo)
			count, _ := one.Meta.Get(keySplitCount)
			tensors, _ := one.Meta.Get(keySplitTensors)
			if no != uint16(0) || count != uint16(len(c.want)) || tensors != int32(5) {
				t.Errorf("split keys %v %v %v", no, count, tensors)
			}
		})
	}
}

// TestSplitDisagrees opens split models whose shards do not fit together.
func TestSplitDisagrees(t *testing.T) {
	t.Parallel()
	shard := func(path string, no, count uint16, total int32, tensors ...string) {
		meta, plan := &Meta{}, &format.Plan{}
		meta.Set(keySplitNo, no)
		meta.Set(keySplitCount, count)
		meta.Set(keySplitTensors, total)
		for _, name := range tensors {
			plan.Outputs = append(plan.Outputs, output(name, format.F32, 4))
		}
		write(t, path, meta, plan, WriteOptions{Force: true})
	}
	for name, c := range map[string]struct {
		make func(prefix string)
		want error
	}{
		"sound":        {func(p string) {}, nil},
		"missing":      {func(p string) { os.Remove(ShardPath(p, 1, 2)) }, fs.ErrNotExist},
		"two times":    {func(p string) { shard(ShardPath(p, 1, 2), 1, 2, 2, "a") }, &format.CorruptError{}},
		"wrong total":  {func(p string) { shard(ShardPath(p, 1, 2), 1, 2, 2, "b", "c") }, &format.CorruptError{}},
		"other total":  {func(p string) { shard(ShardPath(p, 1, 2), 1, 2, 3, "b", "c") }, &format.CorruptError{}},
		"other number": {func(p string) { shard(ShardPath(p, 1, 2), 0, 2, 2, "b") }, &format.CorruptError{}},
		"no split":     {func(p string) { write(t, ShardPath(p, 1, 2), &Meta{}, &format.Plan{}, WriteOptions{Force: true}) }, &format.CorruptError{}},
	} {
		prefix := filepath.Join(t.TempDir(), "m")
		shard(ShardPath(prefix, 0, 2), 0, 2, 2, "a")
		shard(ShardPath(prefix, 1, 2), 1, 2, 2, "b")
		c.make(prefix)
		f, err := Open(ShardPath(prefix, 0, 2))
		if err == nil {
			f.Close()
		}
		var corrupt *format.CorruptError
		if _, wantCorrupt := c.want.(*format.CorruptError); wantCorrupt != errors.As(err, &corrupt) || c.want == nil && err != nil ||
			c.want == fs.ErrNotExist && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	renamed := filepath.Join(t.TempDir(), "renamed.gguf")
	shard(renamed, 0, 2, 2, "a")
	if f, err := Open(renamed); err == nil {
		f.Close()
		t.Error("a shard under another name was opened")
	}
}

// TestRefused has plans and metadata that cannot be written.
func TestRefused(t *testing.T) {
	t.Parallel()
	good := output("a", format.F32, 4)
	short := output("a", format.F32, 4)
	short.UnitBytes = 12
	with := func(key string, v Value) *Meta { m := &Meta{}; m.Set(key, v); return m }
	for name, c := range map[string]struct {
		meta    *Meta
		outputs []*format.Output
		opt     WriteOptions
	}{
		"empty key":      {with("", "x"), nil, WriteOptions{}},
		"bad key":        {with("\xff", "x"), nil, WriteOptions{}},
		"alignment 4":    {with(keyAlignment, uint32(4)), nil, WriteOptions{}},
		"alignment 2^17": {with(keyAlignment, uint32(1<<17)), nil, WriteOptions{}},
		"alignment i32":  {with(keyAlignment, int32(32)), nil, WriteOptions{}},
		"two names":      {&Meta{}, []*format.Output{good, good}, WriteOptions{}},
		"no name":        {&Meta{}, []*format.Output{{Type: format.F32, Shape: []int64{0}}}, WriteOptions{}},
		"long name":      {&Meta{}, []*format.Output{output(strings.Repeat("n", 64), format.F32, 4)}, WriteOptions{}},
		"five dims":      {&Meta{}, []*format.Output{output("a", format.F32, 1, 1, 1, 1, 1)}, WriteOptions{}},
		"dtype":          {&Meta{}, []*format.Output{output("a", format.U8, 4)}, WriteOptions{}},
		"activations":    {&Meta{}, []*format.Output{output("a", format.Q8_K, 256)}, WriteOptions{}},
		"ragged":         {&Meta{}, []*format.Output{output("a", format.Q8_0, 2, 16)}, WriteOptions{}},
		"size":           {&Meta{}, []*format.Output{short}, WriteOptions{}},
		"two limits":     {&Meta{}, []*format.Output{good}, WriteOptions{MaxTensors: 1, MaxSize: 1}},
		"negative limit": {&Meta{}, []*format.Output{good}, WriteOptions{MaxSize: -1}},
	} {
		dir := t.TempDir()
		if w, err := Create(filepath.Join(dir, "x.gguf"), c.meta, &format.Plan{Outputs: c.outputs}, c.opt); err == nil {
			w.Abort()
			t.Errorf("%s: accepted", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

// TestManyStrings parses a vocabulary of half a million tokens and merges. The limit
// is far above what it takes; a reader that fetches scalars one by one exceeds it.
func TestManyStrings(t *testing.T) {
	t.Parallel()
	const n = 500_000
	w := le().head(3, 0, 2).str("tokens").u32(uint32(Array)).u32(uint32(String)).u64(n)
	for i := range uint64(n) {
		w.str(fmt.Sprintf("token%d", i*79))
	}
	w.str("scores").u32(uint32(Array)).u32(uint32(Float32)).u64(n)
	for i := range uint32(n) {
		w.u32(math.Float32bits(float32(i)))
	}
	begin := time.Now()
	f, err := read(w.b)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	tokens, _ := f.Meta.Strs("tokens")
	scores, _ := f.Meta.Floats("scores")
	if len(tokens) != n || tokens[n-1] != fmt.Sprintf("token%d", (n-1)*79) || len(scores) != n || scores[n-1] != n-1 {
		t.Error("the lists are wrong")
	}
	if took > 5*time.Second {
		t.Errorf("parsing took %v", took)
	}
	t.Log(took)
}

// TestLongString reads strings larger than the window.
func TestLongString(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 3*windowSize/16+1)
	w := le().head(3, 0, 3).str("a").u32(uint32(String)).str(long).str("b").u32(uint32(Array)).u32(uint32(String)).u64(3)
	w.str(long).str("x").str(long[1:])
	w.str("c").u32(uint32(Uint32)).u32(7)
	f, err := read(w.b)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := f.Meta.Str("a")
	b, _ := f.Meta.Strs("b")
	c, _ := f.Meta.Int("c")
	if a != long || len(b) != 3 || b[0] != long || b[1] != "x" || b[2] != long[1:] || c != 7 {
		t.Error("the values are wrong")
	}
}

// FuzzRead: no bytes panic, and what reads can be written and read again.
func FuzzRead(f *testing.F) {
	f.Add(everything(binary.LittleEndian))
	f.Add(everything(binary.BigEndian))
	f.Add(le().head(2, 1, 0).info("a", format.Q4_0, 0, 32).data(32, 18).b)
	f.Add(le().head(3, 1, 1).str(keyAlignment).u32(4).u32(64).info("a", format.F32, 0, 0, 2).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		file := readAll(b)
		if file == nil {
			return
		}
		plan := rewritePlan(file)
		l, err := LayoutOf("x.gguf", file.Meta, plan, WriteOptions{})
		if err != nil {
			return // some of what is read leniently is not written: alignment 1, empty names
		}
		data := append(bytes.Clone(l.Shards[0].Header), make([]byte, l.Size()-int64(len(l.Shards[0].Header)))...)
		again, err := read(data)
		if err != nil {
			t.Fatal(err)
		}
		if again.Meta.Len() != file.Meta.Len() || len(again.Tensors) != len(file.Tensors) {
			t.Fatal("keys or tensors were lost")
		}
	})
}
