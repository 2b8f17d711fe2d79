package merge

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// Moments knows what the inputs of matrices look like on real text. Package train
// makes them by running a model; whoever has them otherwise may give them, too.
type Moments interface {
	// Moments returns the mean of x·xᵀ over the inputs x of a tensor as
	//
	//	H = diag(rest) + z·zᵀ
	//
	// with rest of cols numbers, none of them negative, and z of cols x any rank; z without
	// rows when it knows nothing of them. Tensors that share their inputs may be given one
	// and the same z. Neither is changed, nor used after the next call for a tensor with other
	// inputs. A plan calls it for its tensors in the order of the file, one call at a time.
	Moments(ctx context.Context, tensor string) (rest []float32, z kernel.Mat, err error)
}

// damping is what is added to the diagonal of H in units of its mean: directions
// that the sample of inputs hardly shows still count for something, and the
// factors exist. More of it costs less on other texts, and, from a tenth on, some of what
// was learned; see docs/merging.md.
const damping = 0.05

// ldlqBlock is how many columns are rounded between two products that carry errors
// over. Rows are multiples of it.
const ldlqBlock = 32

const (
	fitRank   = 64 // of z, at most
	frameRank = 32 // of what frames are fitted with
)

// inputs are moments made ready for a tensor's method: h = diag(rest) + z·zᵀ is H scaled to
// the mean diagonal 1, plus damping on the diagonal. Everything is linear in n.
type inputs struct {
	n, k  int
	rest  []float32  // n, damped
	plain []float32  // n, without damping
	diag  []float32  // n, of h
	z     kernel.Mat // n x k
	// h = L·D·Lᵀ, L with a unit diagonal, has L_ij = z_i·w_j below the diagonal.
	w kernel.Mat // n x k
	// Of each block of columns on the diagonal, its columns below one another: L, of which what is
	// on and above the diagonal means nothing, and h.
	unit, near kernel.Mat // n x ldlqBlock
	// h with fewer directions, and more on the diagonal for it: diag(fewRest) + few·fewᵀ.
	fewRest []float32
	few     kernel.Mat // n x frameRank, or k if that is less
}

func newInputs(rest []float32, all kernel.Mat) (*inputs, error) {
	n := all.Rows
	if len(rest) != n || n%ldlqBlock != 0 {
		return nil, fmt.Errorf("second moments of %d and %d inputs", len(rest), n)
	}
	var trace float64
	least := float32(0)
	for i, v := range rest {
		trace += float64(v) + float64(kernel.Dot(all.Row(i), all.Row(i)))
		least = min(least, v)
	}
	if !(trace > 0) || math.IsInf(trace, 0) || least < 0 {
		return nil, fmt.Errorf("second moments of %d inputs with the trace %g and the least part %g of the diagonal", n, trace, least)
	}
	z := leading(all, fitRank)
	k := z.Cols
	in := &inputs{n: n, k: k, rest: make([]float32, n), plain: make([]float32, n), diag: make([]float32, n),
		z: kernel.NewMat(n, k), w: kernel.NewMat(n, k),
		unit: kernel.NewMat(n, ldlqBlock), near: kernel.NewMat(n, ldlqBlock)}
	scale := float64(n) / trace
	for i, v := range rest {
		v += lost(all, z, i)
		in.plain[i] = float32(scale * float64(v))
		in.rest[i] = in.plain[i] + damping
		kernel.Scale(in.z.Row(i), float32(math.Sqrt(scale)), z.Row(i))
		in.diag[i] = in.rest[i] + kernel.Dot(in.z.Row(i), in.z.Row(i))
	}
	in.few, in.fewRest = leading(in.z, frameRank), make([]float32, n)
	for i, v := range in.rest {
		in.fewRest[i] = v + lost(in.z, in.few, i)
	}
	in.factorise()
	for lo := 0; lo < n; lo += ldlqBlock {
		a := in.z.Sub(lo, lo+ldlqBlock, 0, k)
		kernel.GemmNT(nil, in.unit.Sub(lo, lo+ldlqBlock, 0, ldlqBlock), in.w.Sub(lo, lo+ldlqBlock, 0, k), a, false)
		kernel.GemmNT(nil, in.near.Sub(lo, lo+ldlqBlock, 0, ldlqBlock), a, a, false)
		for i := range ldlqBlock {
			in.near.Row(lo + i)[i] = in.diag[lo+i]
		}
	}
	return in, nil
}

// lost is what of a diagonal element of z·zᵀ is not in that of fewer columns.
func lost(z, fewer kernel.Mat, i int) float32 {
	if z.Cols == fewer.Cols {
		return 0
	}
	return max(0, kernel.Dot(z.Row(i), z.Row(i))-kernel.Dot(fewer.Row(i), fewer.Row(i)))
}

// factorise finds w. With the first columns taken out, what is left of h is diag(rest) + z·P·zᵀ,
// P = 1 at first; one more column is taken out by
//
//	d = rest_i + z_iᵀ P z_i    w_i = P z_i / d    P = P - d w_i w_iᵀ
//
// which is in O(k²) a column, in float64 (the rank-one downdates of a semiseparable matrix).
func (in *inputs) factorise() {
	k := in.k
	p := make([]float64, k*k)
	for a := range k {
		p[a*k+a] = 1
	}
	v := make([]float64, k)
	for i := range in.n {
		z := in.z.Row(i)
		d := float64(in.rest[i])
		for a := range k {
			row, sum := p[a*k:a*k+k], 0.0
			for b, x := range z {
				sum += float64(row[b] * float64(x))
			}
			v[a] = sum
			d += float64(sum * float64(z[a]))
		}
		w := in.w.Row(i)
		for a := range k {
			f := v[a] / d
			w[a] = float32(f)
			row := p[a*k : a*k+k]
			for b, x := range v {
				row[b] -= float64(f * x)
			}
		}
	}
}

// gains gives told <R, D>, <D, D> and <D-R, D-R> in H of every row, D being the change that is
// wanted and left what of it is not there. The damping is not in H.
func (in *inputs) gains(delta, left kernel.Mat, told func(r int, rd, dd, ee float64)) {
	wanted, missing := kernel.NewMat(delta.Rows, in.k), kernel.NewMat(delta.Rows, in.k)
	kernel.GemmNN(nil, wanted, delta, in.z, false)
	kernel.GemmNN(nil, missing, left, in.z, false)
	x := make([]float32, in.n)
	for r := range delta.Rows {
		l, d := left.Row(r), delta.Row(r)
		kernel.Mul(x, d, in.plain)
		dd := float64(kernel.Dot(x, d)) + float64(kernel.Dot(wanted.Row(r), wanted.Row(r)))
		rd := dd - float64(kernel.Dot(x, l)) - float64(kernel.Dot(wanted.Row(r), missing.Row(r)))
		kernel.Mul(x, l, in.plain)
		told(r, rd, dd, float64(kernel.Dot(x, l))+float64(kernel.Dot(missing.Row(r), missing.Row(r))))
	}
}

// readyInputs keeps the inputs made ready last, for the tensors that share them.
type readyInputs struct {
	from Moments
	last *float32 // the first element of the matrix they were made of
	in   *inputs

	guesses map[string]*float32
	pools   map[string]*sync.Pool
}

// guess is where the stretch last found for tensors of a type and a place in their layers is kept.
func (r *readyInputs) guess(v *format.View) *float32 {
	kind := v.Type.String() + " " + kindOf(v.Name)
	if r.guesses == nil {
		r.guesses = map[string]*float32{}
	}
	if r.guesses[kind] == nil {
		r.guesses[kind] = new(float32)
		*r.guesses[kind] = 2
	}
	return r.guesses[kind]
}

// works are for tensors of a type and as many columns.
func (r *readyInputs) works(v *format.View) *sync.Pool {
	_, cols := v.Rows.Dims()
	key := fmt.Sprint(v.Type, cols)
	if r.pools == nil {
		r.pools = map[string]*sync.Pool{}
	}
	if r.pools[key] == nil {
		r.pools[key] = new(sync.Pool)
	}
	return r.pools[key]
}

func (r *readyInputs) of(ctx context.Context, tensor string) (*inputs, error) {
	if r.from == nil {
		return nil, nil
	}
	rest, z, err := r.from.Moments(ctx, tensor)
	if err != nil || z.Rows == 0 {
		return nil, err
	}
	if r.last != &z.Data[0] {
		r.last, r.in = nil, nil
		if r.in, err = newInputs(rest, z); err != nil {
			return nil, err
		}
		r.last = &z.Data[0]
	}
	return r.in, nil
}
