package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
)

// builder writes GGUF by hand, right or wrong, in either byte order.
type builder struct {
	o binary.AppendByteOrder
	b []byte
}

func (w *builder) u32(v uint32) *builder { w.b = w.o.AppendUint32(w.b, v); return w }
func (w *builder) u64(v uint64) *builder { w.b = w.o.AppendUint64(w.b, v); return w }
func (w *builder) raw(s string) *builder { w.b = append(w.b, s...); return w }
func (w *builder) str(s string) *builder { return w.u64(uint64(len(s))).raw(s) }

func (w *builder) head(version uint32, tensors, keys uint64) *builder {
	return w.raw("GGUF").u32(version).u64(tensors).u64(keys)
}

// info appends a tensor info; ne is in the order of the file.
func (w *builder) info(name string, typ format.Type, offset uint64, ne ...uint64) *builder {
	w.str(name).u32(uint32(len(ne)))
	for _, n := range ne {
		w.u64(n)
	}
	return w.u32(uint32(typ)).u64(offset)
}

// data pads to alignment and appends n bytes.
func (w *builder) data(alignment, n int) *builder {
	for len(w.b)%alignment != 0 {
		w.b = append(w.b, 0)
	}
	w.b = append(w.b, make([]byte, n)...)
	return w
}

func le() *builder { return &builder{o: binary.LittleEndian} }

func read(b []byte) (*File, error) { return NewReader(bytes.NewReader(b), int64(len(b)), "test.gguf") }

// TestMalformed has the cases of the reference reader's own tests, and graft's.
func TestMalformed(t *testing.T) {
	t.Parallel()
	const huge = 1 << 62
	one := func() *builder { return le().head(3, 1, 0) }
	kv := func(key string, t ValueType) *builder { return le().head(3, 0, 1).str(key).u32(uint32(t)) }
	for _, c := range []struct {
		name string
		b    *builder
		at   int64  // offset in the error
		want string // in the error
	}{
		{"empty", le(), 0, "magic"},
		{"magic", le().raw("GGUX").u32(3).u64(0).u64(0), 0, "magic"},
		{"lower case magic", le().raw("gguf").u32(3).u64(0).u64(0), 0, "magic"},
		{"version 0", le().head(0, 0, 0), 4, "version"},
		{"version 4", le().head(4, 0, 0), 4, "version"},
		{"number of tensors", le().head(3, math.MaxUint64, 0), 8, "number of tensors"},
		{"too many tensors", le().head(3, huge, 0), 8, "number of tensors"},
		{"number of keys", le().head(3, 0, math.MaxUint64), 16, "number of metadata keys"},
		{"too many keys", le().head(3, 0, huge).str("k").u32(0).raw("x"), 16, "number of metadata keys"},
		{"key size", le().head(3, 0, 1).u64(1000).raw("0123456789"), 24, "1000"},
		{"huge key size", le().head(3, 0, 1).u64(math.MaxUint64).raw("0123456789"), 24, "exceeds"},
		{"empty key", le().head(3, 0, 1).str("").u32(uint32(String)).str(""), 24, "empty"},
		{"key not UTF-8", kv("a\xff", Uint32).u32(0), 24, "UTF-8"},
		{"value type", kv("k", 13).u32(0), 33, "value type"},
		{"duplicate key", le().head(3, 0, 2).str("k").u32(4).u32(1).str("k").u32(4).u32(1), 41, "twice"},
		{"bool", kv("k", Bool).raw("\x02"), 37, "bool"},
		{"string value", kv("k", String).u64(100).raw("short"), 37, "100"},
		{"string over 1 GiB", kv("k", String).u64(1<<30 + 1), 37, "exceeds"},
		{"array type", kv("k", Array).u32(77).u64(1), 37, "77"},
		{"array length", kv("k", Array).u32(uint32(Uint8)).u64(100).raw("short"), 41, "100"},
		{"array over 2^30", kv("k", Array).u32(uint32(Uint8)).u64(1<<30 + 1), 41, "exceed"},
		{"array of strings", kv("k", Array).u32(uint32(String)).u64(2).str("a").u64(50), 58, "50"},
		{"array of bools", kv("k", Array).u32(uint32(Bool)).u64(3).raw("\x00\x01\x07"), 51, "bool"},
		{"alignment 0", kv(keyAlignment, Uint32).u32(0), 53, "power of two"},
		{"alignment 48", kv(keyAlignment, Uint32).u32(48), 53, "power of two"},
		{"alignment type", kv(keyAlignment, Uint64).u64(32), 53, "u64"},
		{"name size", one().u64(500).raw(strings.Repeat("x", 60)), 24, "500"},
		{"name of 64 bytes", one().info(strings.Repeat("x", 64), format.F32, 0, 4).data(32, 16), 24, "64"},
		{"name not UTF-8", one().info("a\xc0", format.F32, 0, 4).data(32, 16), 24, "UTF-8"},
		{"name with zero", one().info("a\x00b", format.F32, 0, 4).data(32, 16), 24, "zero byte"},
		{"dimensions", one().info("a", format.F32, 0, 1, 1, 1, 1, 1).data(32, 4), 33, "dimensions"},
		{"negative dimension", one().info("a", format.F32, 0, math.MaxUint64).data(32, 4), 37, "negative"},
		{"elements overflow", one().info("a", format.F32, 0, 1<<32, 1<<32).data(32, 4), 37, "overflow"},
		{"bytes overflow", one().info("a", format.F32, 0, 1<<62).data(32, 4), 37, "overflow"},
		{"largest element count", one().info("a", format.I8, 0, math.MaxInt64).data(32, 4), 37, "overflow"},
		{"ragged block", one().info("a", format.Q4_0, 0, 48).data(32, 27), 37, "blocks"},
		{"type", one().info("a", 43, 0, 4).data(32, 16), 45, "id 43"},
		{"type of the future", one().info("a", math.MaxUint32, 0, 4).data(32, 16), 45, "type"},
		{"type of safetensors", one().info("a", format.U8, 0, 4).data(32, 16), 45, "id 1001"},
		{"first offset", one().info("a", format.F32, 32, 4).data(32, 48), 49, "offset"},
		{"hole", le().head(3, 2, 0).info("a", format.F32, 0, 4).info("b", format.F32, 64, 4).data(32, 80), 82, "offset"},
		{"overlap", le().head(3, 2, 0).info("a", format.F32, 0, 4).info("b", format.F32, 0, 4).data(32, 48), 82, "offset"},
		{"reordered", le().head(3, 2, 0).info("a", format.F32, 32, 4).info("b", format.F32, 0, 4).data(32, 48), 49, "offset"},
		{"duplicate tensor", le().head(3, 2, 0).info("a", format.F32, 0, 4).info("a", format.F32, 32, 4).data(32, 48), 57, "twice"},
		{"inconsistent alignment", le().head(3, 2, 1).str(keyAlignment).u32(4).u32(64).
			info("a", format.F32, 0, 4).info("b", format.F32, 32, 4).data(64, 80), 115, "offset"},
		{"not enough data", one().info("a", format.F32, 0, 4).data(32, 15), 49, "end after the file"},
		{"no data", one().info("a", format.F32, 0, 4), 49, "end after the file"},
		{"total too large", le().head(3, 2, 0).info("a", format.I8, 0, 1<<59).info("b", format.I8, 1<<59, 1<<59).data(32, 4), 49, "end after"},
		{"end of the file in an info", one().str("a").u32(1).u64(4), 45, "remain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := read(c.b.b)
			var corrupt *format.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("error %v", err)
			}
			if corrupt.Offset != c.at || !strings.Contains(err.Error(), c.want) || corrupt.Path != "test.gguf" {
				t.Errorf("error %v; want byte %d and %q", err, c.at, c.want)
			}
		})
	}
}

// TestUnsupported: sound files that graft does not read are named, not called corrupt.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	one := func(typ format.Type) *builder { return le().head(3, 1, 0).info("a", typ, 0, 256).data(32, 1024) }
	for want, b := range map[string]*builder{
		"version 1":        le().raw("GGUF").u32(1).u32(0).u32(0).raw("12345678"),
		"arrays of arrays": le().head(3, 0, 1).str("k").u32(uint32(Array)).u32(uint32(Array)).u64(0),
		"q4_2":             one(4),
		"q4_0_4_4":         one(31),
		"i2_s":             one(36),
		"iq2_k":            one(137),
		"row-interleaved":  one(212),
		"q8_1":             one(format.Q8_1),
		"q8_K":             one(format.Q8_K),
	} {
		_, err := read(b.b)
		var unsupported *format.UnsupportedError
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
}

// TestMustPass has the odd files that are right.
func TestMustPass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		b    *builder
		size []int64
	}{
		{"nothing at all", le().head(3, 0, 0), nil},
		{"version 2", le().head(2, 1, 0).info("a", format.F32, 0, 4).data(32, 16), []int64{16}},
		{"zero dimension", le().head(3, 2, 0).info("a", format.F32, 0, 4, 0, 3).info("b", format.F32, 0, 2).data(32, 8), []int64{0, 8}},
		{"zero dimension at the end", le().head(3, 1, 0).info("a", format.Q4_0, 0, 0, 3), []int64{0}},
		{"no dimension", le().head(3, 1, 0).info("a", format.F32, 0).data(32, 4), []int64{4}},
		{"name of 63 bytes", le().head(3, 1, 0).info(strings.Repeat("x", 63), format.I8, 0, 3).data(32, 3), []int64{3}},
		{"alignment 64", le().head(3, 2, 1).str(keyAlignment).u32(4).u32(64).
			info("a", format.F32, 0, 4).info("b", format.F32, 64, 4).data(64, 80), []int64{16, 16}},
		{"alignment 1", le().head(3, 2, 1).str(keyAlignment).u32(4).u32(1).
			info("a", format.I8, 0, 3).info("b", format.I8, 3, 5).data(1, 8), []int64{3, 5}},
		{"trailing bytes", le().head(3, 1, 0).info("a", format.F32, 0, 4).data(32, 16).data(32, 100), []int64{16}},
		{"empty array", le().head(3, 0, 1).str("k").u32(uint32(Array)).u32(uint32(String)).u64(0), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := read(c.b.b)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Tensors) != len(c.size) {
				t.Fatalf("%d tensors, want %d", len(f.Tensors), len(c.size))
			}
			for i, x := range f.Tensors {
				if x.Size != c.size[i] || x.Offset%f.Alignment != 0 {
					t.Errorf("tensor %s: %d bytes at %d, want %d", x.Name, x.Size, x.Offset, c.size[i])
				}
				if _, err := x.ReadAt(make([]byte, x.Size), 0); err != nil {
					t.Error(err)
				}
			}
			if want := map[string]int64{"trailing bytes": 100}[c.name]; f.Shards[0].Trailing != want {
				t.Errorf("%d trailing bytes, want %d", f.Shards[0].Trailing, want)
			}
		})
	}
}

// everything has a key of every type, and tensors, in byte order o.
func everything(o binary.AppendByteOrder) []byte {
	w := &builder{o: o}
	w.head(3, 3, 24)
	w.str("u8").u32(0).raw("\xfe").str("i8").u32(1).raw("\xfe")
	w.str("u16").u32(2)
	w.b = o.AppendUint16(w.b, 0xfedc)
	w.str("i16").u32(3)
	w.b = o.AppendUint16(w.b, 0xfedc)
	w.str("u32").u32(4).u32(0xfedcba98).str("i32").u32(5).u32(0xfedcba98)
	w.str("f32").u32(6).u32(math.Float32bits(-1.5)).str("bool").u32(7).raw("\x01").str("str").u32(8).str("grün")
	w.str("u64").u32(10).u64(1<<63 + 1).str("i64").u32(11).u64(1<<63 + 1).str("f64").u32(12).u64(math.Float64bits(2.5e300))
	for _, t := range []ValueType{Uint8, Int8, Uint16, Int16, Uint32, Int32, Float32, Bool, String, Uint64, Int64, Float64} {
		w.str("arr " + t.String()).u32(uint32(Array)).u32(uint32(t)).u64(2)
		for i := range uint64(2) {
			switch size, _ := valueSize(t); {
			case t == String:
				w.str(fmt.Sprint("element ", i))
			case size == 1:
				w.b = append(w.b, byte(i))
			case size == 2:
				w.b = o.AppendUint16(w.b, uint16(0x4000+i))
			case size == 4:
				w.u32(0x40000000 + uint32(i))
			default:
				w.u64(0x4000000000000000 + i)
			}
		}
	}
	w.info("f32", format.F32, 0, 3).info("q8_0", format.Q8_0, 32, 32, 2).info("f64", format.F64, 128, 1).data(32, 0)
	for i := range uint32(3) {
		w.u32(math.Float32bits(float32(i)))
	}
	for row := range 2 {
		w.data(32-30*row, 0)
		w.b = o.AppendUint16(w.b, 0x3c00+uint16(row))
		for i := range 32 {
			w.b = append(w.b, byte(i))
		}
	}
	return w.data(32, 0).u64(math.Float64bits(7)).b
}

// TestBigEndian reads the same model in both byte orders.
func TestBigEndian(t *testing.T) {
	t.Parallel()
	little, err := read(everything(binary.LittleEndian))
	if err != nil {
		t.Fatal(err)
	}
	big, err := read(everything(binary.BigEndian))
	if err != nil {
		t.Fatal(err)
	}
	if big.ByteOrder != binary.BigEndian || big.Version != 3 || little.ByteOrder != binary.LittleEndian {
		t.Errorf("%v version %d, %v", big.ByteOrder, big.Version, little.ByteOrder)
	}
	for i, a := range little.Meta.All() {
		b := big.Meta.All()[i]
		if fmt.Sprintf("%s %T %v", a.Key, a.Value, a.Value) != fmt.Sprintf("%s %T %v", b.Key, b.Value, b.Value) {
			t.Errorf("metadata %v, big endian %v", a, b)
		}
	}
	if v, _ := little.Meta.Get("i16"); v != int16(-292) {
		t.Errorf("i16 is %v", v)
	}
	if v, _ := little.Meta.Get("str"); v != "grün" {
		t.Errorf("str is %v", v)
	}
	for i, a := range little.Tensors {
		b := big.Tensors[i]
		want, all := make([]byte, a.Size), make([]byte, b.Size)
		if _, err := a.ReadAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadAt(all, 0); err != nil || !bytes.Equal(all, want) {
			t.Errorf("tensor %s: %x, want %x (%v)", b.Name, all, want, err)
		}
		if b.Bytes() != nil {
			t.Errorf("tensor %s: unswapped bytes are offered", b.Name)
		}
		// Ranges that begin and end inside blocks.
		for off := range b.Size {
			for n := range min(b.Size-off, 9) {
				p := make([]byte, n)
				if _, err := b.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+n]) {
					t.Fatalf("tensor %s, %d bytes at %d: %x, want %x (%v)", b.Name, n, off, p, want[off:off+n], err)
				}
			}
		}
	}
	w := &builder{o: binary.BigEndian}
	var unsupported *format.UnsupportedError
	if _, err := read(w.head(3, 1, 0).info("a", format.IQ2_XS, 0, 256).data(32, 74).b); !errors.As(err, &unsupported) {
		t.Errorf("a type that cannot be swapped: %v", err)
	}
}

// TestSwapFields: every type that stands in files is either swapped or one of those
// without a big endian form, and the fields lie inside the block.
func TestSwapFields(t *testing.T) {
	t.Parallel()
	refused := map[format.Type]bool{format.IQ1_S: true, format.IQ1_M: true, format.IQ2_XXS: true, format.IQ2_XS: true,
		format.IQ2_S: true, format.IQ3_XXS: true, format.IQ3_S: true}
	for id := range format.Type(64) {
		if !id.GGML() || !id.Quantized() {
			continue
		}
		fields, ok := wideFields[id]
		if ok == refused[id] {
			t.Errorf("%v: swapped %v, refused %v", id, ok, refused[id])
		}
		for _, f := range fields {
			if f.off+f.width*f.count > id.BlockBytes() {
				t.Errorf("%v: field %v is outside the %d bytes of a block", id, f, id.BlockBytes())
			}
		}
	}
}

// TestTruncated cuts a file at every byte of its header and of its data.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, o := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		all := everything(o)
		for n := range all {
			var corrupt *format.CorruptError
			if _, err := read(all[:n]); !errors.As(err, &corrupt) {
				t.Fatalf("%d of %d bytes: error %v", n, len(all), err)
			}
		}
		if _, err := read(all); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlipped changes each byte of the header in turn: errors or not, no panic.
func TestFlipped(t *testing.T) {
	t.Parallel()
	all := everything(binary.LittleEndian)
	for i := range all {
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			b := bytes.Clone(all)
			b[i] = v
			readAll(b)
		}
	}
}

// readAll reads everything that a file lets itself be read.
func readAll(b []byte) *File {
	f, err := read(b)
	if err != nil {
		return nil
	}
	for _, x := range f.Tensors {
		x.ReadAt(make([]byte, x.Size), 0)
	}
	return f
}
