package quant

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// Imatrix is an importance matrix: for the matrices of a model, the sums of squares
// of each input column over a text. It comes as a GGUF file or in the older .dat
// form, and is read from and written to both.
//
// It may be read by several goroutines at once while none changes it.
type Imatrix struct {
	Path      string
	Datasets  []string // the texts it was computed on
	Chunks    int      // how many pieces of them
	ChunkSize int      // tokens in a piece; 0 in the .dat form, which does not say
	Entries   []ImatrixEntry

	// dat says that Sums are means times Counts, and Counts pieces, not tokens.
	dat bool
}

// ImatrixEntry is the statistic of one tensor.
type ImatrixEntry struct {
	Name string // of the tensor, "blk.0.attn_q.weight"
	// Sums are the sums of squares, one a column, matrix after matrix for stacks of
	// experts.
	Sums []float32
	// Counts are the tokens that each matrix saw. The .dat form has one count for
	// all matrices.
	Counts []float32
}

// ReadImatrix reads an importance matrix of either form. Values that are not
// finite, or counts that do not divide the values, are a [format.CorruptError].
func ReadImatrix(path string) (*Imatrix, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var magic [4]byte
	_, err = f.ReadAt(magic[:], 0)
	f.Close()
	var m *Imatrix
	if err == nil && string(magic[:]) == "GGUF" {
		m, err = readImatrixGGUF(path)
	} else {
		m, err = readImatrixDat(path)
	}
	if err != nil {
		return nil, err
	}
	m.Path = path
	slices.SortFunc(m.Entries, func(a, b ImatrixEntry) int { return strings.Compare(a.Name, b.Name) })
	for i := range m.Entries {
		if err := m.Entries[i].check(path); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (e *ImatrixEntry) check(path string) error {
	bad := func(f string, args ...any) error {
		return &format.CorruptError{Path: path, Offset: -1, Field: "importance of " + e.Name, Err: fmt.Errorf(f, args...)}
	}
	if len(e.Sums) == 0 || len(e.Counts) == 0 || len(e.Sums)%len(e.Counts) != 0 {
		return bad("%d values for %d matrices", len(e.Sums), len(e.Counts))
	}
	if i := firstNonFinite(e.Sums); i >= 0 {
		return bad("value %d is %v", i, e.Sums[i])
	}
	if i := firstNonFinite(e.Counts); i >= 0 {
		return bad("count %d is %v", i, e.Counts[i])
	}
	return nil
}

func readImatrixGGUF(path string) (*Imatrix, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := &Imatrix{}
	chunks, ok1 := f.Meta.Int("imatrix.chunk_count")
	size, ok2 := f.Meta.Int("imatrix.chunk_size")
	var ok3 bool
	m.Datasets, ok3 = f.Meta.Strs("imatrix.datasets")
	if !ok1 || !ok2 || !ok3 || chunks < 0 || size < 0 {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size",
			Err: errors.New("the keys of an importance matrix are missing or wrong")}
	}
	m.Chunks, m.ChunkSize = int(chunks), int(size)
	for _, t := range f.Tensors {
		name, isSums := strings.CutSuffix(t.Name, ".in_sum2")
		if !isSums {
			if base, isCounts := strings.CutSuffix(t.Name, ".counts"); !isCounts || f.Tensor(base+".in_sum2") == nil {
				return nil, &format.CorruptError{Path: path, Offset: t.Offset, Field: "tensor " + t.Name, Err: errors.New("belongs to no importance entry")}
			}
			continue
		}
		counts := f.Tensor(name + ".counts")
		if counts == nil {
			return nil, &format.CorruptError{Path: path, Offset: t.Offset, Field: "tensor " + t.Name, Err: errors.New("has no counts")}
		}
		e := ImatrixEntry{Name: name}
		if e.Sums, err = readF32(t); err != nil {
			return nil, err
		}
		if e.Counts, err = readF32(counts); err != nil {
			return nil, err
		}
		m.Entries = append(m.Entries, e)
	}
	return m, nil
}

// readF32 reads a whole tensor that must be float32.
func readF32(t *format.Tensor) ([]float32, error) {
	if t.Type != format.F32 {
		return nil, &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("is %v, not f32", t.Type)}
	}
	rows, err := format.StoredRows(t)
	if err != nil {
		return nil, err
	}
	x := make([]float32, t.Rows()*t.Cols())
	return x, rows.ReadRows(x, 0)
}

// readImatrixDat reads the older form: counts, names and values without any frame,
// then (in newer files) the number of pieces and the text's name.
func readImatrixDat(path string) (*Imatrix, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := datReader{path: path, data: data}
	m := &Imatrix{dat: true}
	for range r.count("entries", 12) {
		e := ImatrixEntry{Name: string(r.bytes(r.count("length of a name", 1), "name"))}
		calls := float32(r.int32("calls"))
		if calls <= 0 {
			calls = 1
		}
		e.Counts = []float32{calls}
		n := r.count("values", 4)
		raw := r.bytes(4*n, "values")
		if r.err != nil {
			return nil, r.err
		}
		e.Sums = make([]float32, n)
		decodeF32(e.Sums, raw)
		m.Entries = append(m.Entries, e)
	}
	if r.err == nil && r.off < len(data) {
		m.Chunks = int(r.int32("number of pieces"))
		if name := r.bytes(r.count("length of the text's name", 1), "text's name"); len(name) > 0 {
			m.Datasets = []string{string(name)}
		}
	}
	if r.err == nil && r.off < len(data) {
		r.fail(errors.New("bytes after the end"), "end")
	}
	if r.err == nil && len(m.Entries) == 0 {
		r.fail(errors.New("no entries: this is no importance matrix"), "entries")
	}
	return m, r.err
}

// datReader reads little-endian fields; after the first error it gives zeros.
type datReader struct {
	path string
	data []byte
	off  int
	err  error
}

func (r *datReader) fail(err error, field string) {
	if r.err == nil {
		r.err = &format.CorruptError{Path: r.path, Offset: int64(r.off), Field: field, Err: err}
	}
}

func (r *datReader) bytes(n int, field string) []byte {
	if r.err == nil && n > len(r.data)-r.off {
		r.fail(fmt.Errorf("%d bytes, of which %d remain", n, len(r.data)-r.off), field)
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.off : r.off+n]
	r.off += n
	return b
}

func (r *datReader) int32(field string) int32 {
	if b := r.bytes(4, field); b != nil {
		return int32(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// count reads a number of things that take at least size bytes each.
func (r *datReader) count(field string, size int) int {
	n := int(r.int32(field))
	if r.err == nil && (n < 0 || n > (len(r.data)-r.off)/size) {
		r.fail(fmt.Errorf("%d does not fit the bytes that remain", n), field)
	}
	if r.err != nil {
		return 0
	}
	return n
}

// Entry finds the entry of a tensor; nil if there is none.
func (m *Imatrix) Entry(tensor string) *ImatrixEntry {
	i, ok := slices.BinarySearchFunc(m.Entries, tensor, func(e ImatrixEntry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return &m.Entries[i]
}

// Weights gives the importance of the columns of a tensor, matrix after matrix: the
// mean squares, and one where a matrix saw nothing. It is nil if there is no entry.
// The slice is the caller's.
func (m *Imatrix) Weights(tensor string) []float32 {
	e := m.Entry(tensor)
	if e == nil {
		return nil
	}
	w := make([]float32, len(e.Sums))
	cols := len(e.Sums) / len(e.Counts)
	for i, s := range e.Sums {
		if c := e.Counts[i/cols]; c > 0 {
			w[i] = s / c
		} else {
			w[i] = 1
		}
	}
	return w
}

// Filter returns m with the entries whose name contains one of include (all, if it
// is empty) and none of exclude.
func (m *Imatrix) Filter(include, exclude []string) *Imatrix {
	c := *m
	c.Entries = nil
	for _, e := range m.Entries {
		if (len(include) == 0 || hasPart(e.Name, include)) && !hasPart(e.Name, exclude) {
			c.Entries = append(c.Entries, e)
		}
	}
	return &c
}

// raw gives sums and token counts of an entry, which the .dat form must guess from
// its pieces.
func (m *Imatrix) raw(e *ImatrixEntry) (sums, counts []float32) {
	if !m.dat {
		return e.Sums, e.Counts
	}
	size := float32(max(m.ChunkSize, 1))
	sums, counts = slices.Clone(e.Sums), slices.Clone(e.Counts)
	for i := range sums {
		sums[i] *= size
	}
	for i := range counts {
		counts[i] *= size
	}
	return sums, counts
}

// Add adds the sums and counts of other to m, entry by entry, so that matrices
// computed on several texts become one. Entries of .dat files, which do not know
// their tokens, count in pieces of m's ChunkSize.
func (m *Imatrix) Add(other *Imatrix) error {
	o := *other
	if o.ChunkSize == 0 {
		o.ChunkSize = m.ChunkSize
	}
	if m.dat {
		for i := range m.Entries {
			m.Entries[i].Sums, m.Entries[i].Counts = m.raw(&m.Entries[i])
		}
		m.dat = false
	}
	for i := range o.Entries {
		e := &o.Entries[i]
		sums, counts := o.raw(e)
		mine := m.Entry(e.Name)
		if mine == nil {
			m.Entries = append(m.Entries, ImatrixEntry{e.Name, slices.Clone(sums), slices.Clone(counts)})
			slices.SortFunc(m.Entries, func(a, b ImatrixEntry) int { return strings.Compare(a.Name, b.Name) })
			continue
		}
		if len(mine.Sums) != len(sums) || len(mine.Counts) != len(counts) {
			return fmt.Errorf("importance of %s: %d values for %d matrices in %s, %d for %d in %s", e.Name,
				len(mine.Sums), len(mine.Counts), m.Path, len(sums), len(counts), other.Path)
		}
		for j, v := range sums {
			mine.Sums[j] += v
		}
		for j, v := range counts {
			mine.Counts[j] += v
		}
	}
	m.Datasets = append(m.Datasets, o.Datasets...)
	if m.ChunkSize > 0 {
		m.Chunks = 0
		for _, e := range m.Entries {
			m.Chunks = max(m.Chunks, int(slices.Max(e.Counts))/m.ChunkSize)
		}
	} else {
		m.Chunks += o.Chunks
	}
	return nil
}

// WriteGGUF writes m as llama-imatrix does: two tensors an entry, sorted by name.
func (m *Imatrix) WriteGGUF(ctx context.Context, path string, force bool) error {
	meta := &gguf.Meta{}
	meta.Set("general.type", "imatrix")
	meta.Set("imatrix.datasets", append([]string{}, m.Datasets...))
	meta.Set("imatrix.chunk_count", uint32(m.Chunks))
	meta.Set("imatrix.chunk_size", uint32(m.ChunkSize))
	plan := &format.Plan{}
	for i := range m.Entries {
		e := &m.Entries[i]
		sums, counts := m.raw(e)
		for _, t := range []struct {
			suffix string
			x      []float32
		}{{".in_sum2", sums}, {".counts", counts}} {
			shape := []int64{int64(len(t.x) / len(counts))}
			if len(counts) > 1 {
				shape = []int64{int64(len(counts)), shape[0]}
			}
			o, err := format.NewOutput(e.Name+t.suffix, format.F32, shape, &floatRows{t.x, int64(len(t.x) / len(counts))}, nil)
			if err != nil {
				return err
			}
			plan.Outputs = append(plan.Outputs, o)
		}
	}
	w, err := gguf.Create(path, meta, plan, gguf.WriteOptions{Force: force})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, format.RunOptions{}); err != nil {
		return err
	}
	return w.Close()
}

// floatRows is a matrix in memory.
type floatRows struct {
	x    []float32
	cols int64
}

func (f *floatRows) Dims() (rows, cols int64) { return int64(len(f.x)) / f.cols, f.cols }

func (f *floatRows) ReadRows(dst []float32, row int64) error {
	copy(dst, f.x[row*f.cols:])
	return nil
}

// WriteDat writes m in the older form. Entries without any token are left out;
// matrices without any get ones.
func (m *Imatrix) WriteDat(path string, force bool) error {
	var b []byte
	int32s := func(n int) { b = binary.LittleEndian.AppendUint32(b, uint32(int32(n))) }
	var entries []*ImatrixEntry
	for i := range m.Entries {
		if slices.Max(m.Entries[i].Counts) > 0 {
			entries = append(entries, &m.Entries[i])
		}
	}
	int32s(len(entries))
	for _, e := range entries {
		int32s(len(e.Name))
		b = append(b, e.Name...)
		calls := int(slices.Max(e.Counts))
		if !m.dat {
			size := max(m.ChunkSize, 1)
			calls = (calls + size - 1) / size
		}
		int32s(calls)
		int32s(len(e.Sums))
		cols := len(e.Sums) / len(e.Counts)
		for i, v := range e.Sums {
			if !m.dat {
				c := e.Counts[i/cols]
				if c == 0 {
					v, c = 1, 1
				}
				v = v / c * float32(calls)
			}
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	int32s(m.Chunks)
	name := ""
	if len(m.Datasets) > 0 {
		name = m.Datasets[len(m.Datasets)-1]
	}
	int32s(len(name))
	b = append(b, name...)
	return atomicfile.WriteFile(path, b, force)
}
