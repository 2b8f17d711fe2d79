package quant

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/mmap"
	"github.com/graft-lora/graft/internal/rng"
)

// BnBMove says how a change goes into matrices that bitsandbytes has quantized.
type BnBMove struct {
	// Anew quantizes the sums as bitsandbytes would, scales and all, to nearest. Without it scales
	// stay, and each code becomes that of one of the two values beside the sum, of the upper one with the
	// probability that makes the expected value exact; what lies beyond the largest value becomes that one.
	Anew bool
	Seed uint64 // of the coins
}

// IsBnB says whether a model has matrices that bitsandbytes has quantized.
func IsBnB(m *arch.Model) bool {
	for _, v := range m.Views {
		if ofBnB(v.Type) {
			return true
		}
	}
	return false
}

func ofBnB(t format.Type) bool { return t == format.NF4 || t == format.FP4 || t == format.INT8 }

// NewBnBMove plans the folder that base was opened from with the values of sum, which is base
// with something added to the tensors for which changed says so, by their GGUF names. Matrices
// that are quantized stay so, in the same type; those that are not changed are copied, and so
// are configuration and tokenizer, but for tokens that sum has more.
func NewBnBMove(base, sum *arch.Model, changed func(tensor string) bool, opt BnBMove) (*convert.HFFolder, error) {
	f, byName, err := hfPlan(sum)
	if err != nil {
		return nil, err
	}
	plan := &format.Plan{}
	for _, o := range f.Plan.Outputs {
		v := byName[o.Name]
		outputs := []*format.Output{o}
		if ofBnB(v.Type) {
			if outputs, err = moveOutputs(o, v, changed(v.GGUF), opt); err != nil {
				return nil, fmt.Errorf("%s: tensor %s: %w", base.Path, o.Name, err)
			}
		}
		plan.Outputs = append(plan.Outputs, outputs...)
	}
	f.Plan = plan
	return f, keepQuantization(f, base, len(sum.Added) > 0)
}

// keepQuantization makes f's configuration that of base again, which a folder of floats has not.
func keepQuantization(f *convert.HFFolder, base *arch.Model, resized bool) error {
	path := filepath.Join(base.Path, checkpoint.ConfigName)
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if resized {
		var c struct {
			Quantization json.RawMessage `json:"quantization_config"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			return &format.CorruptError{Path: path, Offset: -1, Field: "JSON", Err: err}
		}
		return f.SetQuantization(c.Quantization)
	}
	for i := range f.Files {
		if f.Files[i].Name == checkpoint.ConfigName {
			f.Files[i].Data = config
		}
	}
	return nil
}

// moveOutputs are the tensors of one matrix. v has its new values, and o would write them as floats.
func moveOutputs(o *format.Output, v *arch.HFView, changed bool, opt BnBMove) ([]*format.Output, error) {
	stored := map[string]*format.Tensor{}
	for _, t := range v.From {
		stored[t.Name] = t
	}
	var p *arch.Packed
	if weight := stored[o.Name]; weight != nil {
		var err error
		if p, err = OpenBnB(weight, func(name string) *format.Tensor { return stored[name] }); err != nil {
			return nil, err
		}
	}
	if p == nil {
		return nil, format.Unsupported("its codes stand in a matrix of another name: name a --type, f16 for one")
	}
	if changed && opt.Anew {
		nested := false
		if m, ok := p.Rows.(*nibbleRows); ok {
			nested = m.absmax.plain == nil
		}
		return bnbOutputs(o, v.Rows, v.Type, BnBOptions{Type: p.Type, Nested: nested})
	}
	var list []*format.Output
	for _, t := range p.From {
		list = append(list, &format.Output{Name: t.Name, Type: t.Type, Shape: t.Shape, Why: "copied", Units: t.Size, UnitBytes: 1,
			Fill: func(dst []byte, at int64) error {
				_, err := t.ReadAt(dst, at)
				return err
			}})
	}
	if changed {
		m := newBnBMover(o.Name, p, v.Rows, opt.Seed)
		list[0].Why, list[0].Fill, list[0].Cost = "merged: its scales stay", m.fill, 8*m.perByte
		list[0].Finish = func() error { release(v.Rows); return nil }
	}
	return list, nil
}

// bnbMover moves the codes of a matrix.
type bnbMover struct {
	name      string
	codes     []byte
	perByte   int64 // codes in a byte, the first of two in the high half
	base, sum format.RowReader
	levels    []float32 // ascending, of which an element is one times its scale
	gaps      []float64 // one over the distance of each from the next
	level     [256]uint8
	code      []uint8               // of each level
	group     int64                 // elements under a scale
	scale     func(g int64) float32 // of group g
	dice      rng.Stream
}

func newBnBMover(name string, p *arch.Packed, sum format.RowReader, seed uint64) *bnbMover {
	m := &bnbMover{name: name, base: p.Rows, sum: sum, perByte: 1, dice: rng.New(seed, "keep", name)}
	switch r := p.Rows.(type) {
	case *nibbleRows:
		n, _ := nibbleOf(p.Type)
		m.codes, m.perByte, m.code = r.codes, 2, n.sorted[:]
		for _, c := range m.code {
			m.levels = append(m.levels, n.table[c])
		}
		m.group, m.scale = r.block, r.absmax.at
	case *int8Rows:
		m.codes = r.codes
		for c := -127; c <= 127; c++ {
			m.code, m.levels = append(m.code, uint8(c)), append(m.levels, float32(c))
		}
		m.group, m.scale = r.cols, func(row int64) float32 { return floatAt(r.scales, row) * float32(1.0/127) }
	}
	for l, c := range m.code {
		if m.level[c] = uint8(l); l > 0 {
			m.gaps = append(m.gaps, 1/(float64(m.levels[l])-float64(m.levels[l-1])))
		}
	}
	return m
}

// fill makes the bytes from at on.
func (m *bnbMover) fill(dst []byte, at int64) error {
	err := mmap.Guard(func() error {
		copy(dst, m.codes[at:])
		rows, cols := m.base.Dims()
		from, to := m.perByte*at, min(m.perByte*(at+int64(len(dst))), rows*cols)
		if from >= to {
			return nil
		}
		first, last := from/cols, (to+cols-1)/cols
		step := max(holdChunk/cols, 1)
		was, now := make([]float32, min(step, last-first)*cols), make([]float32, min(step, last-first)*cols)
		for row := first; row < last; row += step {
			n := min(step, last-row) * cols
			if err := m.base.ReadRows(was[:n], row); err != nil {
				return err
			}
			if err := m.sum.ReadRows(now[:n], row); err != nil {
				return err
			}
			change := now[:n]
			kernel.Sub(change, change, was[:n])
			for i, end := max(from, row*cols), min(to, row*cols+n); i < end; {
				g := i / m.group
				next := min(end, (g+1)*m.group)
				if !m.move(dst, i-from, i, m.scale(g), change[i-row*cols:next-row*cols]) {
					return fmt.Errorf("row %d: the change, or the scale that it is added under, is not a number", i/cols)
				}
				i = next
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tensor %s: %w", m.name, err)
	}
	return nil
}

// move changes elements under one scale: the first is element i, the one of number j in dst. It is
// false if something is not a number.
func (m *bnbMover) move(dst []byte, j, i int64, scale float32, delta []float32) bool {
	if scale == 0 { // all are zero, whatever their codes
		return true
	}
	inv, last := 1/float64(scale), len(m.gaps)
	for k, d := range delta {
		if d == 0 {
			continue
		}
		at, shift, mask := j+int64(k), uint(0), uint8(0xff)
		if m.perByte == 2 {
			at, shift, mask = at>>1, uint(4*(1-at&1)), 15
		}
		b := &dst[at]
		l := m.level[*b>>shift&mask]
		way := float64(float64(d) * inv)
		y := float64(m.levels[l]) + way
		coin := m.dice.Float64(uint64(i) + uint64(k))
		// Mostly the level or the one below is the lower of the two; no branch waits for which, nor
		// for the coin.
		c := int(l) - int(math.Float64bits(way)>>63)
		if uint(c) < uint(last) && float64(m.levels[c]) <= y && y < float64(m.levels[c+1]) {
			share := float64((y - float64(m.levels[c])) * m.gaps[c])
			c += int(math.Float64bits(coin-share) >> 63)
		} else if y-y != 0 {
			return false
		} else {
			c = int(RoundLevel(m.levels, l, y, coin))
		}
		*b = *b&^(mask<<shift) | m.code[c]<<shift
	}
	return true
}
