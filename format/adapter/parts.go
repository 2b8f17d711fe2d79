package adapter

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
)

// The parts of a module's change, as the files of kohya's scripts, LyCORIS and diffusers
// name them: what follows the module in a key, and what it is called below.
var partNames = []struct{ ending, part string }{
	{".lora_down.weight", "down"}, {".lora_up.weight", "up"}, {".lora_mid.weight", "mid"},
	{".lora_A.weight", "down"}, {".lora_B.weight", "up"}, // diffusers since 0.22, ComfyUI
	{".lora_A.default.weight", "down"}, {".lora_B.default.weight", "up"},
	{"_lora.down.weight", "down"}, {"_lora.up.weight", "up"}, // diffusers' attention processors
	{".lora.down.weight", "down"}, {".lora.up.weight", "up"},
	{".lora_linear_layer.down.weight", "down"}, {".lora_linear_layer.up.weight", "up"},
	{".alpha", "alpha"}, {".dora_scale", "magnitude"}, {".lora_magnitude_vector", "magnitude"},
	{".hada_w1_a", "hada_w1_a"}, {".hada_w1_b", "hada_w1_b"}, {".hada_w2_a", "hada_w2_a"}, {".hada_w2_b", "hada_w2_b"},
	{".hada_t1", "hada_t1"}, {".hada_t2", "hada_t2"},
	{".lokr_w1", "lokr_w1"}, {".lokr_w1_a", "lokr_w1_a"}, {".lokr_w1_b", "lokr_w1_b"},
	{".lokr_w2", "lokr_w2"}, {".lokr_w2_a", "lokr_w2_a"}, {".lokr_w2_b", "lokr_w2_b"}, {".lokr_t2", "lokr_t2"},
	{".a1.weight", "a1"}, {".a2.weight", "a2"}, {".b1.weight", "b1"}, {".b2.weight", "b2"},
	{".diff", "diff"}, {".diff_b", "diff_b"}, {".w_norm", "w_norm"}, {".b_norm", "b_norm"},
}

// ofNoUse are parts of kinds that no linear change can express.
var ofNoUse = []struct{ ending, what string }{
	{".on_input", "IA3"}, {".oft_blocks", "OFT"}, {".oft_diag", "OFT"}, {".rescale", "OFT"}, {".scalar", "a scalar of LyCORIS"},
	{".a1", "GLoRA without .weight"}, {".bm1.weight", "GLoRA of layers in groups"},
}

// splitPart divides a key into a module and a part; part is "" if none is known.
func splitPart(key string) (module, part string) {
	for _, p := range partNames {
		if m, ok := strings.CutSuffix(key, p.ending); ok {
			return m, p.part
		}
	}
	return key, ""
}

// stored is a tensor read whole, as a matrix of its first dimension by the others.
type stored struct {
	Matrix
	shape []int64
	t     *format.Tensor
}

func (s *stored) kernel() []int64 {
	if s == nil || len(s.shape) < 3 {
		return nil
	}
	return s.shape[2:]
}

// readStored reads a tensor of up to five dimensions.
func readStored(t *format.Tensor) (*stored, error) {
	rows := int64(1)
	if len(t.Shape) > 0 {
		rows = t.Shape[0]
	}
	n := t.Rows() * t.Cols()
	if len(t.Shape) > 5 || rows > math.MaxInt32 || n > math.MaxInt32 || n < 1 {
		return nil, &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("shape %v is not one of an adapter", t.Shape)}
	}
	data, err := readAll(t)
	if err != nil {
		return nil, err
	}
	return &stored{Matrix{Rows: int(rows), Cols: int(n / rows), Data: data}, t.Shape, t}, nil
}

// parts are the tensors of one module.
type parts map[string]*stored

// problem is a module that its parts do not make.
func (p parts) problem(module, f string, args ...any) error {
	var first *format.Tensor // in the file, so that the message does not depend on the order of a map
	for _, s := range p {
		if first == nil || s.t.Offset < first.Offset {
			first = s.t
		}
	}
	if first == nil {
		return fmt.Errorf(f, args...)
	}
	return &format.CorruptError{Path: first.Path, Offset: first.Offset, Field: "module " + module, Err: fmt.Errorf(f, args...)}
}

// has says whether all of names are there.
func (p parts) has(names ...string) bool {
	for _, n := range names {
		if p[n] == nil {
			return false
		}
	}
	return true
}

// kinds are the ways in which parts make a change. The first whose key part is there is
// the one; use lists what it takes.
var kinds = []struct {
	key   string
	use   []string
	build func(p parts, module string) ([]*Pair, error)
}{
	{"up", []string{"up", "down", "mid", "alpha", "magnitude"}, parts.lora},
	{"down", []string{"up", "down", "mid", "alpha", "magnitude"}, parts.lora},
	{"hada_w1_a", []string{"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha", "magnitude"}, parts.loha},
	{"lokr_w1", []string{"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha", "magnitude"}, parts.lokr},
	{"lokr_w1_a", []string{"lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha", "magnitude"}, parts.lokr},
	{"a1", []string{"a1", "a2", "b1", "b2", "alpha"}, parts.glora},
}

// pairs makes the changes of a module: of its weight, its bias, or a norm.
func (p parts) pairs(module string) ([]*Pair, error) {
	used := map[string]bool{}
	var list []*Pair
	for _, k := range kinds {
		if p[k.key] == nil {
			continue
		}
		got, err := k.build(p, module)
		if err != nil {
			return nil, err
		}
		list = append(list, got...)
		for _, u := range k.use {
			used[u] = true
		}
		break
	}
	if d := p["diff"]; d != nil {
		if list != nil {
			return nil, p.problem(module, "has a full difference beside a low-rank one")
		}
		used["diff"], used["alpha"] = true, true
		list = append(list, fullPair(module, d.Matrix, d.kernel(), len(d.shape) < 2))
	}
	for _, v := range []struct{ part, what string }{{"w_norm", ""}, {"b_norm", ".bias"}, {"diff_b", ".bias"}} {
		if d := p[v.part]; d != nil {
			used[v.part] = true
			q := fullPair(module, d.Matrix, nil, true)
			q.suffix = v.what
			list = append(list, q)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !used[name] {
			return nil, p.problem(module, "has %s, which does not go with the rest of it", p[name].t.Name)
		}
	}
	return list, nil
}

// scaled sets the scale alpha/rank; without an alpha it is 1.
func (p parts) scaled(q *Pair, rank int) error {
	q.Rank = q.A.Rows
	q.Scale = 1
	if a := p["alpha"]; a != nil {
		if len(a.Data) != 1 {
			return p.problem(q.Module, "alpha has shape %v: it is no number", a.shape)
		}
		q.Scale = float32(float64(a.Data[0]) / float64(rank))
		if rank == q.Rank {
			q.alpha = float64(a.Data[0])
		}
	} else if rank == q.Rank {
		q.alpha = float64(rank)
	}
	return nil
}

// magnitude sets the norms of DoRA: of rows when the file has (out, 1) or one dimension,
// of columns when it has (1, in).
func (p parts) magnitude(q *Pair) error {
	m := p["magnitude"]
	if m == nil {
		return nil
	}
	q.Magnitude, q.NormEpsilon = m.Data, 0x1p-23 // LyCORIS adds the smallest step at 1 to the norm
	switch {
	case len(m.shape) == 1 && len(m.Data) == q.B.Rows:
		q.NormEpsilon = 0 // PEFT's
	case len(m.Data) == m.Rows && len(m.Data) == q.B.Rows:
	case m.Rows == 1 && len(m.Data) == q.A.Cols:
		q.Columns = true
	case m.Rows == 1 && len(q.Kernel) > 0 && len(m.Data)*size(q.Kernel) == q.A.Cols:
		return format.Unsupported("%s: DoRA of the input channels of a convolution (%s)", m.t.Path, q.Module)
	default:
		return p.problem(q.Module, "dora_scale has shape %v, the matrix is %d x %d", m.shape, q.B.Rows, q.A.Cols)
	}
	return nil
}

func size(kernel []int64) int {
	n := 1
	for _, k := range kernel {
		n *= int(k)
	}
	return n
}

// lora is up·down, for convolutions with a middle too (LoCon; CP decomposition):
// D[o,i,h,w] = Σ up[o,p] mid[p,q,h,w] down[q,i].
func (p parts) lora(module string) ([]*Pair, error) {
	up, down := p["up"], p["down"]
	switch {
	case up == nil:
		return nil, p.problem(module, "has A but no B")
	case down == nil:
		return nil, p.problem(module, "has B but no A")
	case size(up.kernel()) != 1:
		return nil, format.Unsupported("%s: module %s: lora_up is a convolution of %v", up.t.Path, module, up.kernel())
	}
	q := &Pair{Module: module, Expert: -1, A: down.Matrix, B: up.Matrix, Kernel: down.kernel()}
	if mid := p["mid"]; mid != nil {
		if size(down.kernel()) != 1 || mid.Rows != up.Cols || len(mid.shape) < 3 || int(mid.shape[1]) != down.Rows {
			return nil, p.problem(module, "lora_mid has shape %v, lora_down %v and lora_up %v", mid.shape, down.shape, up.shape)
		}
		q.A, q.Kernel = contract(mid, down.Matrix), mid.kernel()
	}
	if q.A.Rows != q.B.Cols {
		return nil, p.problem(module, "A has rank %d, B %d", q.A.Rows, q.B.Cols)
	}
	if err := p.scaled(q, q.A.Rows); err != nil {
		return nil, err
	}
	return []*Pair{q}, p.magnitude(q)
}

// contract is Σ_q mid[p,q,…] down[q,i], as a matrix of p by (i, …).
func contract(mid *stored, down Matrix) Matrix {
	k := size(mid.kernel())
	inner := mid.Cols / k
	out := Matrix{Rows: mid.Rows, Cols: down.Cols * k, Data: make([]float32, mid.Rows*down.Cols*k)}
	acc := make([]float64, down.Cols*k)
	for r := range mid.Rows {
		clear(acc)
		for q := range inner {
			for i, d := range down.Row(q) {
				for h, m := range mid.Row(r)[q*k : (q+1)*k] {
					acc[i*k+h] += float64(m) * float64(d) // exact: two float32
				}
			}
		}
		row := out.Row(r)
		for i, x := range acc {
			row[i] = float32(x)
		}
	}
	return out
}

// loha is (w1a·w1b)∘(w2a·w2b), elementwise, as a pair: its rank is the product of the two
// ranks, row by row the Kronecker product of the factors' rows (the Khatri-Rao product).
func (p parts) loha(module string) ([]*Pair, error) {
	if !p.has("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b") || (p["hada_t1"] == nil) != (p["hada_t2"] == nil) {
		return nil, p.problem(module, "lacks a part of LoHa")
	}
	var bs, as [2]Matrix
	var kernel []int64
	rank := p["hada_w1_b"].Rows
	for i, n := range []string{"1", "2"} {
		a, b, t := p["hada_w"+n+"_a"], p["hada_w"+n+"_b"], p["hada_t"+n]
		bs[i], as[i] = a.Matrix, b.Matrix
		if t != nil { // w1a is then rank x out
			if len(t.shape) < 3 || t.Rows != a.Rows || int(t.shape[1]) != b.Rows {
				return nil, p.problem(module, "hada_t%s has shape %v, its factors %v and %v", n, t.shape, a.shape, b.shape)
			}
			bs[i], as[i], kernel = a.transposed(), contract(t, b.Matrix), t.kernel()
		}
		if bs[i].Cols != as[i].Rows {
			return nil, p.problem(module, "hada_w%s_a has rank %d, hada_w%s_b %d", n, bs[i].Cols, n, as[i].Rows)
		}
	}
	if bs[0].Rows != bs[1].Rows || as[0].Cols != as[1].Cols {
		return nil, p.problem(module, "the two products of LoHa are of %d x %d and %d x %d", bs[0].Rows, as[0].Cols, bs[1].Rows, as[1].Cols)
	}
	q := &Pair{Module: module, Expert: -1, Kernel: kernel}
	r1, r2 := bs[0].Cols, bs[1].Cols
	if r1*r2 >= min(bs[0].Rows, as[0].Cols) {
		// No pair is smaller than the matrix itself.
		full := product(bs[0], as[0])
		for i, x := range product(bs[1], as[1]).Data {
			full.Data[i] *= x
		}
		q = fullPair(module, full, kernel, false)
	} else {
		q.B, q.A = rowwise(bs[0], bs[1]), rowwise(as[0].transposed(), as[1].transposed()).transposed()
	}
	if err := p.scaled(q, rank); err != nil {
		return nil, err
	}
	return []*Pair{q}, p.magnitude(q)
}

// product is b·a.
func product(b, a Matrix) Matrix {
	out := Matrix{Rows: b.Rows, Cols: a.Cols, Data: make([]float32, b.Rows*a.Cols)}
	acc := make([]float64, a.Cols)
	for i := range b.Rows {
		clear(acc)
		for k, x := range b.Row(i) {
			for j, y := range a.Row(k) {
				acc[j] += float64(x) * float64(y) // exact: two float32
			}
		}
		for j, x := range acc {
			out.Row(i)[j] = float32(x)
		}
	}
	return out
}

// rowwise is the Kronecker product of each row of x with that of y.
func rowwise(x, y Matrix) Matrix {
	out := Matrix{Rows: x.Rows, Cols: x.Cols * y.Cols, Data: make([]float32, 0, x.Rows*x.Cols*y.Cols)}
	for i := range x.Rows {
		for _, a := range x.Row(i) {
			for _, b := range y.Row(i) {
				out.Data = append(out.Data, a*b)
			}
		}
	}
	return out
}

// kron is the Kronecker product.
func kron(x, y Matrix) Matrix {
	out := Matrix{Rows: x.Rows * y.Rows, Cols: x.Cols * y.Cols, Data: make([]float32, 0, len(x.Data)*len(y.Data))}
	for i := range x.Rows {
		for k := range y.Rows {
			for _, a := range x.Row(i) {
				for _, b := range y.Row(k) {
					out.Data = append(out.Data, a*b)
				}
			}
		}
	}
	return out
}

// lokr is kron(w1, w2), each full or a product: kron(b1·a1, b2·a2) = kron(b1, b2)·kron(a1, a2).
func (p parts) lokr(module string) ([]*Pair, error) {
	rank := 0
	b1, a1, k1, r, err := p.side(module, "lokr_w1", nil)
	if err != nil {
		return nil, err
	}
	rank = max(rank, r)
	b2, a2, kernel, r, err := p.side(module, "lokr_w2", p["lokr_t2"])
	if err != nil {
		return nil, err
	}
	if r > 0 {
		rank = r
	}
	if k1 != nil {
		return nil, p.problem(module, "lokr_w1 has %d dimensions", 2+len(k1))
	}
	var q *Pair
	if b1.Cols*b2.Cols >= min(b1.Rows*b2.Rows, a1.Cols*a2.Cols) {
		q = fullPair(module, kron(product(b1, a1), product(b2, a2)), kernel, false)
	} else {
		q = &Pair{Module: module, Expert: -1, B: kron(b1, b2), A: kron(a1, a2), Kernel: kernel}
	}
	if rank == 0 { // both are full: the scale is 1, whatever alpha says
		q.Rank, q.Scale = q.A.Rows, 1
		q.alpha = float64(q.Rank)
	} else if err := p.scaled(q, rank); err != nil {
		return nil, err
	}
	return []*Pair{q}, p.magnitude(q)
}

// side is one side of a Kronecker product as b·a, with the rank that the file has for it:
// 0 where it is full.
func (p parts) side(module, name string, t *stored) (b, a Matrix, kernel []int64, rank int, err error) {
	if full := p[name]; full != nil {
		if full.Rows <= full.Cols {
			return identity(full.Rows), full.Matrix, full.kernel(), 0, nil
		}
		return full.Matrix, identity(full.Cols), full.kernel(), 0, nil
	}
	x, y := p[name+"_a"], p[name+"_b"]
	if x == nil || y == nil {
		return b, a, nil, 0, p.problem(module, "lacks a part of %s", name)
	}
	if t != nil { // x is then rank x out
		if len(t.shape) < 3 || t.Rows != x.Rows || int(t.shape[1]) != y.Rows {
			return b, a, nil, 0, p.problem(module, "lokr_t2 has shape %v, its factors %v and %v", t.shape, x.shape, y.shape)
		}
		return x.transposed(), contract(t, y.Matrix), t.kernel(), y.Rows, nil
	}
	if x.Cols != y.Rows {
		return b, a, nil, 0, p.problem(module, "%s_a has rank %d, %s_b %d", name, x.Cols, name, y.Rows)
	}
	return x.Matrix, y.Matrix, y.kernel(), y.Rows, nil
}

func identity(n int) Matrix {
	m := Matrix{Rows: n, Cols: n, Data: make([]float32, n*n)}
	for i := range n {
		m.Data[i*n+i] = 1
	}
	return m
}

// glora is W·a1·a2 + b1·b2. What it adds depends on the base: W·a1 is computed when the
// adapter is resolved.
func (p parts) glora(module string) ([]*Pair, error) {
	if !p.has("a1", "a2", "b1", "b2") {
		return nil, p.problem(module, "lacks a part of GLoRA")
	}
	a1, a2, b1, b2 := p["a1"], p["a2"], p["b1"], p["b2"]
	if a1.Cols != a2.Rows || b1.Cols != b2.Rows || a1.Rows != b2.Cols || a2.Cols != b2.Cols || a1.Cols != b1.Cols {
		return nil, p.problem(module, "the factors of GLoRA have shapes %v, %v, %v and %v", a1.shape, a2.shape, b1.shape, b2.shape)
	}
	q := &Pair{Module: module, Expert: -1, B: b1.Matrix, A: b2.Matrix}
	if err := p.scaled(q, b1.Cols); err != nil {
		return nil, err
	}
	q.onBase = &onBase{in: a1.Matrix, out: a2.Matrix}
	return []*Pair{q}, nil
}

// onBase is what a change needs of the base: GLoRA's part that multiplies it, W·in·out, or that it is to be taken off
// of a whole weight.
type onBase struct {
	in, out Matrix
	whole   bool
}

// fullPair is a change that is stored as it is. Its factors, for all that works on
// factors, are the matrix and an identity.
func fullPair(module string, d Matrix, kernel []int64, vector bool) *Pair {
	if vector { // one row
		d = Matrix{Rows: 1, Cols: len(d.Data), Data: d.Data}
	}
	q := &Pair{Module: module, Expert: -1, Scale: 1, Kernel: kernel, Vector: vector, full: d}
	if d.Rows <= d.Cols {
		q.B, q.A = identity(d.Rows), d
	} else {
		q.B, q.A = d, identity(d.Cols)
	}
	q.Rank = q.A.Rows
	q.alpha = float64(q.Rank)
	return q
}

// readParts sorts the tensors of a file by module, in the order of the file.
func readParts(path string, tensors []*format.Tensor) (modules []string, of map[string]parts, err error) {
	of = map[string]parts{}
	for _, t := range tensors {
		module, part := splitPart(t.Name)
		if part == "" {
			for _, n := range ofNoUse {
				if strings.HasSuffix(t.Name, n.ending) {
					return nil, nil, format.Unsupported("%s: tensor %s: %s cannot be expressed as an addition to a weight", path, t.Name, n.what)
				}
			}
			return nil, nil, format.Unsupported("%s: tensor %s: not a part of an adapter that graft knows", path, t.Name)
		}
		s, err := readStored(t)
		if err != nil {
			return nil, nil, err
		}
		p := of[module]
		if p == nil {
			p = parts{}
			of[module] = p
			modules = append(modules, module)
		}
		if p[part] != nil {
			return nil, nil, &format.CorruptError{Path: path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("%s is there, too", p[part].t.Name)}
		}
		p[part] = s
	}
	slices.Sort(modules)
	return modules, of, nil
}
