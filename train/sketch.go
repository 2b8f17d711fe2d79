package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

const (
	sketchProbes  = 16 // columns of a sketch that is stored
	sketchLeast   = 1024
	sketchMost    = 16384
	sketchVersion = "1"
)

// Sketch is what is kept of the second moments H of inputs so that a merge can do without
// the text: of each input its mean squares, diag(H), and Y = H·Ω for a few random columns
// Ω of ±1. A model's inputs have most of their moments in a few directions, which Y spans:
//
//	H ≈ Y (Ωᵀ Y)⁻¹ Yᵀ + what is missing on the diagonal
//
// (Nyström; Gittens and Mahoney 2016). The first part never exceeds H, so the diagonal
// comes out as it was. Ω is a function of the input's name, and not stored. Trainers add a
// sketch of some of what they trained on, with the adapter on, in the time of a few
// hundredths of the run; it takes 2·probes+4 bytes for each input.
//
// A Sketch is read-only but for Moments, which keeps what it made last.
type Sketch struct {
	Tokens int // it was made of
	parts  map[string]*sketchPart
	last   string
	rest   []float32
	z      kernel.Mat
}

type sketchPart struct {
	diag   []float32  // n
	y      kernel.Mat // n x probes
	tokens int
	signs  []uint64 // of Ω, a bit for each number; nil until they are asked for
}

func newSketchPart(n, probes int) *sketchPart {
	return &sketchPart{diag: make([]float32, n), y: kernel.NewMat(n, probes)}
}

// partBytes is what a part holds of n inputs.
func partBytes(n, probes int) int64 { return int64(n) * (4 + 4*int64(probes) + int64(probes)/8) }

// add adds inputs to the sums.
func (p *sketchPart) add(pool *kernel.Pool, input string, x kernel.Mat) {
	p.tokens += x.Rows
	omega := p.omega(input)
	u := kernel.NewMat(x.Rows, omega.Cols)
	kernel.GemmNN(pool, u, x, omega, false)
	kernel.GemmTN(pool, p.y, x, u, true)
	for t := range x.Rows {
		for i, v := range x.Row(t) {
			p.diag[i] += float32(v * v)
		}
	}
}

// mean makes means of the sums.
func (p *sketchPart) mean() {
	kernel.Scale(p.y.Data, 1/float32(p.tokens), p.y.Data)
	kernel.Scale(p.diag, 1/float32(p.tokens), p.diag)
}

// omega is Ω of an input, n x probes. Only its signs are kept.
func (p *sketchPart) omega(input string) kernel.Mat {
	m := kernel.NewMat(len(p.diag), p.y.Cols)
	if p.signs == nil {
		p.signs = make([]uint64, (len(m.Data)+63)/64)
		s := rng.New(0, "moments", input)
		for i := range m.Data {
			p.signs[i/64] |= s.Uint64(uint64(i)) & 1 << (i % 64)
		}
	}
	for i := range m.Data {
		m.Data[i] = float32(int(p.signs[i/64]>>(i%64)&1)*2 - 1)
	}
	return m
}

// collect adds what goes into the matrices of s on samples, with adapters active, and makes
// means of it. With head the head runs, too.
func (s *Sketch) collect(ctx context.Context, m *model.Model, samples []data.Sample, limit, threads int, head bool, adapters []model.Scaled) error {
	pool := kernel.NewPool(threads)
	defer pool.Close()
	err := eachInput(ctx, m, samples, limit, head, adapters, func(name string, x kernel.Mat) error {
		in := inputOf(name)
		p := s.parts[in]
		if p == nil {
			return nil
		}
		if x.Cols != len(p.diag) {
			return fmt.Errorf("train: the input of %s has %d columns, not %d", name, x.Cols, len(p.diag))
		}
		p.add(pool, in, x)
		return nil
	})
	for _, p := range s.parts {
		if p.tokens > 0 {
			p.mean()
		}
	}
	return err
}

// sketchInputs makes the sketch of the inputs of matrices on samples, with adapters active.
func sketchInputs(ctx context.Context, m *model.Model, samples []data.Sample, limit, threads int, matrices []string, adapters ...model.Scaled) (*Sketch, error) {
	s := &Sketch{parts: map[string]*sketchPart{}}
	head := false
	for _, name := range matrices {
		_, n, ok := m.MatrixDims(name)
		if in := inputOf(name); ok && s.parts[in] == nil {
			s.parts[in] = newSketchPart(n, sketchProbes)
			head = head || isHead(name)
		}
	}
	if err := s.collect(ctx, m, samples, limit, threads, head, adapters); err != nil {
		return nil, err
	}
	for in, p := range s.parts {
		if p.tokens == 0 {
			delete(s.parts, in)
			continue
		}
		s.Tokens = max(s.Tokens, p.tokens)
	}
	return s, nil
}

// Moments returns the H that the sketch stands for, diag(rest) + z·zᵀ; z has no rows if it knows
// nothing of the tensor's inputs. Both are valid until the next call for a tensor with other
// inputs.
func (s *Sketch) Moments(_ context.Context, tensor string) (rest []float32, z kernel.Mat, err error) {
	in := inputOf(tensor)
	p := s.parts[in]
	if p == nil {
		return nil, kernel.Mat{}, nil
	}
	if s.last != in || s.z.Rows == 0 {
		rest, z, err := p.lowRank(in)
		if err != nil {
			return nil, kernel.Mat{}, fmt.Errorf("%s: %w", in, err)
		}
		s.last, s.rest, s.z = in, rest, z
	}
	return s.rest, s.z, nil
}

// Sketches are those of several adapters that are merged at once: their sum.
type Sketches []*Sketch

// Moments is [Sketch.Moments] of the sum, whose rank is the sum of theirs.
func (s Sketches) Moments(ctx context.Context, tensor string) (rest []float32, z kernel.Mat, err error) {
	if len(s) == 1 {
		return s[0].Moments(ctx, tensor)
	}
	for _, one := range s {
		r, y, err := one.Moments(ctx, tensor)
		if err != nil {
			return nil, z, err
		}
		switch {
		case y.Rows == 0:
		case z.Rows == 0:
			rest, z = slices.Clone(r), y
		case z.Rows != y.Rows:
			return nil, z, fmt.Errorf("sketches of %d and of %d inputs of %s", z.Rows, y.Rows, tensor)
		default:
			kernel.Add(rest, r)
			both := kernel.NewMat(z.Rows, z.Cols+y.Cols)
			for i := range z.Rows {
				copy(both.Row(i), z.Row(i))
				copy(both.Row(i)[z.Cols:], y.Row(i))
			}
			z = both
		}
	}
	return rest, z, nil
}

// lowRank is H as Z Zᵀ and what is missing on the diagonal.
func (p *sketchPart) lowRank(input string) (rest []float32, z kernel.Mat, err error) {
	n, k := len(p.diag), p.y.Cols
	// C = Ωᵀ Y, symmetric but for rounding; F with C = F Fᵀ, Z = Y F⁻ᵀ and H ≈ Z Zᵀ.
	product := kernel.NewMat(k, k)
	kernel.GemmTN(nil, product, p.omega(input), p.y, false)
	c := make([]float64, k*k)
	trace := 0.0
	for a := range k {
		for b := range a + 1 {
			c[a*k+b] = (float64(product.Row(a)[b]) + float64(product.Row(b)[a])) / 2
		}
		trace += c[a*k+a]
	}
	if trace-trace != 0 {
		return nil, z, fmt.Errorf("a sketch that is not finite")
	}
	// The rounding of what was stored must not become directions of its own.
	for a := range k {
		c[a*k+a] += 1e-4 * trace / float64(k)
	}
	if !cholesky(c, k) {
		return nil, z, fmt.Errorf("a sketch that is none of second moments")
	}
	z, rest = kernel.NewMat(n, k), make([]float32, n)
	for i, d := range p.diag {
		row, y := z.Row(i), p.y.Row(i)
		sum := 0.0
		for a := range k {
			v := float64(y[a])
			for b := range a {
				v -= float64(c[a*k+b] * float64(row[b]))
			}
			row[a] = float32(v / c[a*k+a])
			sum += float64(float64(row[a]) * float64(row[a]))
		}
		// Never less than a little of its own: more would say that the others tell all of it.
		rest[i] = float32(max(float64(d)-sum, 0.001*sum))
	}
	return rest, z, nil
}

// cholesky makes the lower part of a (k x k) the factor F of a = F·Fᵀ.
func cholesky(a []float64, k int) bool {
	for i := range k {
		for j := range i + 1 {
			v := a[i*k+j]
			for l := range j {
				v -= float64(a[i*k+l] * a[j*k+l])
			}
			if i > j {
				a[i*k+j] = v / a[j*k+j]
				continue
			}
			if !(v > 0) {
				return false
			}
			a[i*k+i] = math.Sqrt(v)
		}
	}
	return true
}

// numbers are a float32 matrix as rows that can be written.
type numbers struct{ kernel.Mat }

func (m numbers) Dims() (rows, cols int64) { return int64(m.Rows), int64(m.Cols) }

func (m numbers) ReadRows(dst []float32, row int64) error {
	copy(dst, m.Data[int(row)*m.Cols:])
	return nil
}

// write stores the sketch. Y is divided by what bounds its rows, √(n·H_ii), so that float16
// holds them all with the same precision; a row of no input is zero.
func (s *Sketch) write(ctx context.Context, path string) error {
	plan := &format.Plan{}
	var inputs []string
	for in := range s.parts {
		inputs = append(inputs, in)
	}
	slices.Sort(inputs)
	for _, in := range inputs {
		p := s.parts[in]
		n := len(p.diag)
		y := kernel.NewMat(n, p.y.Cols)
		for i, d := range p.diag {
			if d > 0 {
				kernel.Scale(y.Row(i), 1/rowBound(d, n), p.y.Row(i))
			}
		}
		for _, t := range []struct {
			name  string
			typ   format.Type
			shape []int64
			m     kernel.Mat
		}{
			{in + ".diagonal", format.F32, []int64{int64(n)}, kernel.Mat{Data: p.diag, Rows: 1, Cols: n, Stride: n}},
			{in + ".sketch", format.F16, []int64{int64(n), int64(p.y.Cols)}, y},
		} {
			o, err := format.NewOutput(t.name, t.typ, t.shape, numbers{t.m}, nil)
			if err != nil {
				return err
			}
			plan.Outputs = append(plan.Outputs, o)
		}
	}
	meta := map[string]string{"graft.moments": sketchVersion, "graft.moments.tokens": strconv.Itoa(s.Tokens)}
	w, err := safetensors.Create(path, plan, meta, safetensors.WriteOptions{Force: true})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := format.Run(ctx, plan, w, format.RunOptions{}); err != nil {
		return err
	}
	return w.Close()
}

// sketchTokens is how many tokens a run over so many looks at for its sketch.
func sketchTokens(trained int64) int { return min(max(int(trained/33), sketchLeast), sketchMost) }

// writeMoments adds to the adapter the sketch of what it was trained on: of the first samples,
// as many as make some 3 % of the run, no fewer than sketchLeast tokens and no more than
// sketchMost. A pass over them costs a third of a training step on them.
func (r *runner) writeMoments(ctx context.Context) error {
	want := sketchTokens(r.state.Tokens)
	var samples []data.Sample
	tokens := 0
	for _, s := range answers(r.train) {
		if tokens >= want {
			break
		}
		samples = append(samples, s)
		tokens += s.Size()
	}
	s, err := sketchInputs(ctx, r.base.Model, samples, r.cfg.Batch*r.cfg.Context, r.cfg.Threads, r.lora.names, model.Scaled{Adapter: r.lora.adapter, Weight: 1})
	if err != nil || len(s.parts) == 0 {
		return err // nothing is known of the inputs of experts
	}
	return s.write(ctx, filepath.Join(r.cfg.Output, MomentsFile))
}

// rowBound bounds the row of an H·Ω whose diagonal element is diag.
func rowBound(diag float32, n int) float32 {
	return float32(math.Sqrt(float64(diag) * float64(n)))
}

// OpenSketch reads the sketch beside an adapter: adapter is its folder, or a file in it. It
// gives nil where there is none.
func OpenSketch(adapter string) (*Sketch, error) {
	st, err := os.Stat(adapter)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		adapter = filepath.Dir(adapter)
	}
	path := filepath.Join(adapter, MomentsFile)
	if _, err := os.Stat(path); err != nil {
		return nil, nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if v := f.Metadata["graft.moments"]; v != sketchVersion {
		return nil, format.Unsupported("%s: moments of version %q", path, v)
	}
	s := &Sketch{parts: map[string]*sketchPart{}}
	s.Tokens, _ = strconv.Atoi(f.Metadata["graft.moments.tokens"])
	for _, t := range f.Tensors {
		in, ok := strings.CutSuffix(t.Name, ".sketch")
		if !ok {
			continue
		}
		d := f.Tensor(in + ".diagonal")
		if d == nil || len(t.Shape) != 2 || len(d.Shape) != 1 || t.Rows() != d.Cols() || t.Cols() < 1 || t.Cols() > 1024 || t.Cols() > t.Rows() {
			return nil, &format.CorruptError{Path: path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("shape %v does not go with its diagonal", t.Shape)}
		}
		p := &sketchPart{}
		y, err := readNumbers(t)
		if err != nil {
			return nil, err
		}
		if p.diag, err = readNumbers(d); err != nil {
			return nil, err
		}
		n, k := len(p.diag), int(t.Cols())
		p.y = kernel.Mat{Data: y, Rows: n, Cols: k, Stride: k}
		for i, v := range p.diag {
			if v < 0 {
				return nil, &format.CorruptError{Path: path, Offset: d.Offset, Field: "tensor " + d.Name, Err: fmt.Errorf("mean square %d is %v", i, v)}
			}
			kernel.Scale(p.y.Row(i), rowBound(v, n), p.y.Row(i))
		}
		s.parts[in] = p
	}
	return s, nil
}

// readNumbers reads a small tensor whole; numbers that are not finite are an error.
func readNumbers(t *format.Tensor) ([]float32, error) {
	rows, err := format.StoredRows(t)
	if err != nil {
		return nil, err
	}
	x := make([]float32, t.Rows()*t.Cols())
	if err := rows.ReadRows(x, 0); err != nil {
		return nil, err
	}
	for i, v := range x {
		if v-v != 0 {
			return nil, &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("element %d is %v", i, v)}
		}
	}
	return x, nil
}
