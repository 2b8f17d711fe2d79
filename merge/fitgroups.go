package merge

import (
	"context"
	"fmt"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// groupFitter merges rows of a type that codes weights in groups. There the steps are so wide
// and the points so few that rounding each group to the nearest point carries errors worse than
// not moving it; so, in turn,
//
//  0. a block that the change makes into something else is quantized anew, H's diagonal
//     weighing its columns;
//  1. the factors of blocks are refitted by least squares in H;
//  2. groups are moved, one after the other and in a few rounds, to the point near theirs
//     that makes the error of outputs smallest, towards a stretched change;
//  3. the factors are refitted once more.
//
// The stretch is found as for other types ([fitter]).
type groupFitter struct {
	rowFitter
	g *quant.Groups
}

const (
	groupRounds = 4    // of moves
	groupRenew  = 0.25 // part of a block's sum of squares; a larger change makes it another block
)

func openGroupFit(t *target, g *quant.Groups) (encoder, error) {
	codec, err := format.EncoderOf(t.typ)
	if err != nil {
		return nil, err
	}
	t.codec = codec
	f := &groupFitter{g: g}
	f.open(t, g.Block, g.Bytes, func(old rowsFit) rowsFit {
		w, ok := old.(*groupWork)
		if !ok || w.f.g != g || w.f.n != f.n || w.f.batch != f.batch || w.state.Cols != f.in.k || w.missing.Cols != f.in.few.Cols {
			return f.newWork()
		}
		w.f = f
		return w
	})
	t.prepare = func(ctx context.Context) error {
		in, err := t.inputs(ctx)
		if err != nil {
			return err
		}
		if in == nil {
			return format.Unsupported("nothing is known of its inputs, and method fit cannot move the codes of %v without: name text with --data, use requantize, or another --type", t.typ)
		}
		if err := f.know(in); err != nil {
			return err
		}
		return f.findStretch()
	}
	t.finish = f.close
	return f.encode, nil
}

// groupWork is the work on some rows.
type groupWork struct {
	f            *groupFitter
	rows         int
	start, raw   []byte
	again        bool
	delta, left  kernel.Mat // rows x n: what is wanted, and of that what is not there yet
	base         []float32
	now, scratch kernel.Mat // rows x n
	missing      kernel.Mat // rows x few: left·few
	blockZ       kernel.Mat // rows x blocks·few
	groups       []quant.Group
	step         []float32
	state, push  kernel.Mat // rows x k, rows x ldlqBlock
	sys          system
}

func (f *groupFitter) newWork() *groupWork {
	n, few, rows := f.n, f.in.few.Cols, f.batch
	return &groupWork{f: f, delta: kernel.NewMat(rows, n), left: kernel.NewMat(rows, n), base: make([]float32, rows*n),
		now: kernel.NewMat(rows, n), scratch: kernel.NewMat(rows, n), missing: kernel.NewMat(rows, few), blockZ: kernel.NewMat(rows, f.blocks*few),
		groups: make([]quant.Group, rows*n/8), step: make([]float32, rows*n/f.g.Sub),
		state: kernel.NewMat(rows, f.in.k), push: kernel.NewMat(rows, ldlqBlock)}
}

func (w *groupWork) begin(raw []byte, delta []float32, again bool) error {
	f := w.f
	w.rows, w.again = len(delta)/f.n, again
	w.start = append(w.start[:0], raw...)
	for _, m := range []*kernel.Mat{&w.delta, &w.left, &w.now, &w.scratch, &w.missing, &w.blockZ, &w.state, &w.push} {
		m.Rows, m.Data = w.rows, m.Data[:w.rows*m.Cols]
	}
	w.base, w.groups, w.step = w.base[:len(delta)], w.groups[:len(delta)/8], w.step[:len(delta)/f.g.Sub]
	f.t.codec.Decode(w.base, raw)
	copy(w.delta.Data, delta)
	var sum []float32
	for b := range w.rows * f.blocks {
		d, x := delta[b*f.g.Block:(b+1)*f.g.Block], w.base[b*f.g.Block:(b+1)*f.g.Block]
		square := kernel.SumSquares64(d)
		if square-square != 0 {
			return fmt.Errorf("the change is not a number")
		}
		if square <= groupRenew*kernel.SumSquares64(x) {
			continue
		}
		sum = append(sum[:0], x...)
		kernel.Add(sum, d)
		col := b % f.blocks * f.g.Block
		if err := f.t.codec.Encode(w.start[b*f.g.Bytes:(b+1)*f.g.Bytes], sum, f.g.Block, f.in.diag[col:col+f.g.Block]); err != nil {
			return err
		}
	}
	return nil
}

func (w *groupWork) merge(stretch float32) {
	f := w.f
	w.raw = append(w.raw[:0], w.start...)
	w.update()
	w.refit()
	f.g.Unpack(w.groups, w.step, w.raw)
	kernel.Scale(w.left.Data, stretch, w.left.Data)
	w.move()
	f.g.Pack(w.raw, w.groups)
	w.update()
	w.refit()
}

func (w *groupWork) result() []byte { return w.raw }

// gains is that of [rowsFit].
func (w *groupWork) gains(told func(r int, rd, dd, ee float64)) (rd, dd float64) {
	w.f.in.gains(w.delta, w.left, told)
	for r := 0; w.again && r < w.rows; r++ {
		d := w.delta.Row(r)
		square := float64(kernel.Dot(d, d))
		rd += square - float64(kernel.Dot(d, w.left.Row(r)))
		dd += square
	}
	return rd, dd
}

// update computes what is left from the bytes as they are now.
func (w *groupWork) update() {
	w.f.t.codec.Decode(w.now.Data, w.raw)
	kernel.Sub(w.left.Data, w.now.Data, w.base)
	kernel.Sub(w.left.Data, w.delta.Data, w.left.Data)
}

// refit finds new factors: that of a block multiplies all its weights.
func (w *groupWork) refit() {
	f, in, y := w.f, w.f.in, &w.sys
	k, block := in.few.Cols, f.g.Block
	kernel.GemmNN(nil, w.missing, w.left, in.few, false)
	for b := range f.blocks {
		lo, hi := b*block, (b+1)*block
		kernel.GemmNN(nil, w.blockZ.Sub(0, w.rows, b*k, (b+1)*k), w.now.Sub(0, w.rows, lo, hi), in.few.Sub(lo, hi, 0, k), false)
	}
	for r := range w.rows {
		y.resize(f.blocks, k)
		copy(y.z, w.blockZ.Row(r))
		now, x := w.now.Row(r), w.scratch.Row(r)
		kernel.Mul(x, now, in.fewRest)
		factor := func(b int) []byte {
			at := (r*f.blocks + b) * f.g.Bytes
			return w.raw[at : at+f.g.Bytes]
		}
		for b := range f.blocks {
			part := x[b*block : (b+1)*block]
			y.scale2[b] = float64(kernel.Dot(part, now[b*block:(b+1)*block]))
			y.b[b] = float64(kernel.Dot(part, w.left.Row(r)[b*block:(b+1)*block])) + float64(kernel.Dot(y.row(b), w.missing.Row(r)))
			y.fixed[b] = f.g.Factor(factor(b)) == 0
		}
		// The variables are relative changes of the factors.
		nearest := func(b int, by float64) float32 {
			d := float64(f.g.Factor(factor(b)))
			return kernel.F16Value(kernel.F16Bits(float32(max(-65504, min(65504, d+float64(d*by))))))
		}
		y.solve()
		better := y.round(func(b int, by float64) float64 {
			return float64(nearest(b, by))/float64(f.g.Factor(factor(b))) - 1
		})
		for b := range f.blocks {
			if better && !y.fixed[b] && y.x[b] != 0 {
				f.g.SetFactor(factor(b), nearest(b, y.x[b]))
			}
		}
	}
	w.update()
}

// move moves groups towards what is left.
func (w *groupWork) move() {
	f, in := w.f, w.f.in
	kernel.GemmNN(nil, w.state, w.left, in.z, false)
	var m [8]float32
	for range groupRounds {
		moves := 0
		for lo := 0; lo < f.n; lo += ldlqBlock {
			kernel.GemmNT(nil, w.push, w.state, in.z.Sub(lo, lo+ldlqBlock, 0, in.k), false)
			for r := range w.rows {
				left, push := w.left.Row(r)[lo:lo+ldlqBlock], w.push.Row(r)
				for q := 0; q < ldlqBlock; q += 8 {
					for i := q; i < q+8; i++ {
						push[i] += float32(in.rest[lo+i] * left[i])
					}
					at := r*f.n + lo + q
					if !f.best(&w.groups[at/8], w.step[at/f.g.Sub], push[q:q+8], lo+q, &m) {
						continue
					}
					moves++
					for i, by := range m {
						if by == 0 {
							continue
						}
						left[q+i] -= by
						kernel.Axpy(push[q+8:], -by, in.near.Row(lo + q + i)[q+8:])
						kernel.Axpy(w.state.Row(r), -by, in.z.Row(lo+q+i))
					}
				}
			}
		}
		if moves == 0 {
			break
		}
	}
}

// best moves a group to where the error is smallest, if that is not where it is, and gives by how
// much its values change. push is half the gradient at its columns, from col on:
// the error changes by mᵀHm - 2mᵀpush for a move by m.
func (f *groupFitter) best(group *quant.Group, step float32, push []float32, col int, m *[8]float32) bool {
	g, in := f.g, f.in
	if step == 0 {
		return false
	}
	// With the signs taken out: what a move of the magnitudes by 1 gains, and costs at least.
	var gain, cost [8]float32
	for i := range gain {
		gain[i] = float32(2 * step * push[i])
		if group.Signs>>i&1 != 0 {
			gain[i] = -gain[i]
		}
		cost[i] = float32(step * step * in.rest[col+i])
	}
	most, found := float32(0), false
	var to quant.Group
	try := func(c quant.Group, by *[8]float32, bound float32) {
		if bound <= most {
			return
		}
		if worth := f.worth(group.Signs, by, gain, step, col); worth > most {
			most, to, found = worth, c, true
			*m = *by
		}
	}
	var by [8]float32
	for h := range 8 / g.Cell {
		from := &g.Values[group.Points[h]]
		for _, p := range g.Near[group.Points[h]] {
			v := &g.Values[p]
			var bound float32
			for j := range g.Cell {
				d := v[j] - from[j]
				bound += float32(d * (gain[h*g.Cell+j] - float32(cost[h*g.Cell+j]*d)))
			}
			if bound <= most {
				continue
			}
			by = [8]float32{}
			for j := range g.Cell {
				by[h*g.Cell+j] = v[j] - from[j]
			}
			c := *group
			c.Points[h] = p
			try(c, &by, bound)
		}
	}
	if g.Signs != quant.NoSigns {
		// Turning a sign moves the magnitude by minus twice of it.
		var turned [8]float32
		first, second := 0, 1
		for i := range turned {
			v := -2 * g.Values[group.Points[i/g.Cell]][i%g.Cell]
			turned[i] = float32(v * (gain[i] - float32(cost[i]*v)))
			by[i] = v
		}
		for i := 1; i < 8; i++ {
			switch {
			case turned[i] > turned[first]:
				first, second = i, first
			case i > 1 && turned[i] > turned[second]:
				second = i
			}
		}
		all, c, bound := by, *group, turned[first]
		by = [8]float32{}
		by[first] = all[first]
		c.Signs ^= 1 << first
		if g.Signs == quant.EvenSigns {
			by[second] = all[second]
			c.Signs ^= 1 << second
			bound += turned[second]
		}
		try(c, &by, bound)
	}
	if !found {
		return false
	}
	for i := range m {
		m[i] = float32(m[i] * step)
		if group.Signs>>i&1 != 0 {
			m[i] = -m[i]
		}
	}
	*group = to
	return true
}

// worth is by how much the error gets smaller when the magnitudes move.
func (f *groupFitter) worth(signs uint8, by *[8]float32, gain [8]float32, step float32, col int) float32 {
	first := col % ldlqBlock
	var linear, square float32
	for i, x := range by {
		if x == 0 {
			continue
		}
		linear += float32(x * gain[i])
		near := f.in.near.Row(col + i)[first : first+8]
		var sum float32
		for j, y := range by {
			p := float32(near[j] * y)
			if (signs>>i^signs>>j)&1 != 0 {
				p = -p
			}
			sum += p
		}
		square += float32(x * sum)
	}
	return linear - float32(float32(step*step)*square)
}
