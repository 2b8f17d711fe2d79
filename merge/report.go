package merge

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strings"
	"sync"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/quant"
)

// Survival says what became of the wanted change in one tensor, or in all of them.
// With D the wanted change, R the realised one (merged minus base, both decoded):
type Survival struct {
	Elements int64   `json:"elements"`
	Changed  int64   `json:"codes_changed"` // codes (or, in float types, values) that differ from the base's
	Gain     float64 `json:"gain"`          // <R, D> / <D, D>: 1 is full strength, 0 is lost
	// GainOnInputs and ErrorOnInputs are gain and relative error of the outputs on real
	// inputs, in their second moments. They are 0 where a method used none.
	GainOnInputs  float64 `json:"gain_on_inputs,omitempty"`
	ErrorOnInputs float64 `json:"relative_error_on_inputs,omitempty"`
	Correlation   float64 `json:"correlation"`    // <R, D> / (|R| |D|)
	Error         float64 `json:"relative_error"` // |R - D| / |D|
	DeltaRMS      float64 `json:"delta_rms"`      // root mean square of D
	WeightRMS     float64 `json:"weight_rms"`     // of the base
}

// TensorSurvival is the survival of one tensor.
type TensorSurvival struct {
	Name   string `json:"tensor"`
	Type   string `json:"type"`
	Method string `json:"method"`
	Survival
}

// Report is what a merge did, tensor by tensor in the order of the file. It is
// complete when the plan has been run.
type Report struct {
	Tensors []*TensorSurvival `json:"tensors"`
	Total   Survival          `json:"total"`

	tallies []*tally
}

// sums of one row, in the order of its columns.
type sums struct {
	changed        int64
	rd, dd, rr, ww float64
	// The same in the moments of inputs, of rows that were merged with them.
	rdIn, ddIn, eeIn float64
}

func (s *sums) add(o sums) {
	s.changed += o.changed
	s.rd += o.rd
	s.dd += o.dd
	s.rr += o.rr
	s.ww += o.ww
	s.rdIn += o.rdIn
	s.ddIn += o.ddIn
	s.eeIn += o.eeIn
}

// scale makes the sums those of values f times as large.
func (s *sums) scale(f float64) {
	for _, x := range []*float64{&s.rd, &s.dd, &s.rr, &s.ww, &s.rdIn, &s.ddIn, &s.eeIn} {
		*x *= f * f
	}
}

func (s sums) survival(n int64) Survival {
	v := Survival{Elements: n, Changed: s.changed}
	if n > 0 {
		v.DeltaRMS, v.WeightRMS = math.Sqrt(s.dd/float64(n)), math.Sqrt(s.ww/float64(n))
	}
	if s.dd > 0 {
		v.Gain = s.rd / s.dd
		v.Error = math.Sqrt(max(s.rr-2*s.rd+s.dd, 0) / s.dd)
	}
	if s.ddIn > 0 {
		v.GainOnInputs = s.rdIn / s.ddIn
		v.ErrorOnInputs = math.Sqrt(max(s.eeIn, 0) / s.ddIn)
	}
	if s.rr > 0 && s.dd > 0 {
		v.Correlation = s.rd / math.Sqrt(s.rr*s.dd)
	}
	return v
}

// tally collects the sums of a tensor by row, so that their total does not depend
// on how the rows were dealt out to threads.
type tally struct {
	t      *TensorSurvival
	cols   int
	grid   *quant.Grid
	groups *quant.Groups
	rows   []sums
	all    sums // of all rows, once they are counted
	// factors make weights of what is stored and counted.
	factors *factors
}

func (r *Report) tally(v *format.View, method string) *tally {
	_, cols := v.Rows.Dims()
	t := &tally{t: &TensorSurvival{Name: v.Name, Type: v.Type.String(), Method: method}, cols: int(cols)}
	t.grid, _ = quant.GridOf(v.Type)
	t.groups, _ = quant.GroupsOf(v.Type)
	r.Tensors = append(r.Tensors, t.t)
	r.tallies = append(r.tallies, t)
	return t
}

// begin makes room for the tensor's rows; end adds them up and lets them go.
func (t *tally) begin(rows int64) { t.rows = make([]sums, rows) }

func (t *tally) end() {
	for i, row := range t.rows {
		if t.factors != nil {
			row.scale(float64(t.factors.at(int64(i))))
		}
		t.all.add(row)
	}
	t.t.Survival = t.all.survival(int64(len(t.rows)) * int64(t.cols))
	t.rows = nil
}

// onInputs takes the products of a row on inputs.
func (t *tally) onInputs(row int64, rd, dd, ee float64) {
	s := &t.rows[row]
	s.rdIn, s.ddIn, s.eeIn = rd, dd, ee
}

// added takes the sums of a row.
func (t *tally) added(row int64, a kernel.Added) {
	s := &t.rows[row]
	s.changed, s.rd, s.dd, s.rr, s.ww = a.Changed, a.RD, a.DD, a.RR, a.WW
}

// count compares merged rows with the base's. raw and merged are their bytes,
// base and now their values; the last two are overwritten.
func (t *tally) count(raw, merged []byte, base, now, delta []float32, row int64) {
	n := len(delta) / t.cols
	for i := range n {
		s := &t.rows[row+int64(i)]
		*s = sums{rdIn: s.rdIn, ddIn: s.ddIn, eeIn: s.eeIn}
		w, r, d := base[i*t.cols:(i+1)*t.cols], now[i*t.cols:(i+1)*t.cols], delta[i*t.cols:(i+1)*t.cols]
		switch {
		case t.grid != nil, t.groups != nil && raw != nil: // counted below
		default:
			s.changed = differing(w, r)
		}
		kernel.Sub(r, r, w)
		s.rd, s.dd, s.rr, s.ww = kernel.Dot64(r, d), kernel.SumSquares64(d), kernel.SumSquares64(r), kernel.SumSquares64(w)
	}
	if t.groups != nil && raw != nil {
		t.countGroups(raw, merged, base, row) // whose values are no longer needed
	}
	if t.grid == nil {
		return
	}
	g := t.grid
	codes := codeScratch.Get().(*[]uint8)
	defer codeScratch.Put(codes)
	if len(*codes) < 2*len(delta) {
		*codes = make([]uint8, 2*len(delta))
	}
	a, b := (*codes)[:len(delta)], (*codes)[len(delta):2*len(delta)]
	step, min := base[:len(delta)/g.Sub], now[:len(delta)/g.Sub] // their values are no longer needed
	g.Unpack(a, step, min, raw)
	g.Unpack(b, step, min, merged)
	for i := range n {
		t.rows[row+int64(i)].changed += differing8(a[i*t.cols:(i+1)*t.cols], b[i*t.cols:(i+1)*t.cols])
	}
}

// codeScratch are the codes of blocks.
var codeScratch = sync.Pool{New: func() any { return new([]uint8) }}

// differing counts the values of other bits, without a branch that nobody can foresee.
func differing(x, y []float32) (n int64) {
	y = y[:len(x)]
	for i, v := range x {
		d := math.Float32bits(v) ^ math.Float32bits(y[i])
		n += int64((d | -d) >> 31)
	}
	return n
}

// blockNumber finds the number of a block in a name.
var blockNumber = regexp.MustCompile(`\.(\d+)\.`)

// kindOf is what a tensor is in its layer.
func kindOf(name string) string {
	if rest, ok := strings.CutPrefix(name, "blk."); ok {
		_, name, _ = strings.Cut(rest, ".")
	} else if m := blockNumber.FindStringSubmatchIndex(name); m != nil {
		name = name[:m[2]] + "*" + name[m[3]:]
	}
	return name
}

// differing8 counts the bytes that differ, eight at a time.
func differing8(x, y []byte) (n int64) {
	const low, high = 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	y = y[:len(x)]
	for ; len(x) >= 8; x, y = x[8:], y[8:] {
		d := binary.LittleEndian.Uint64(x) ^ binary.LittleEndian.Uint64(y)
		n += int64(bits.OnesCount64((d&low + low | d) & high))
	}
	for i, v := range x {
		if v != y[i] {
			n++
		}
	}
	return n
}

// groupScratch are the groups of blocks.
var groupScratch = sync.Pool{New: func() any { return new([]quant.Group) }}

// countGroups counts the values of groups that moved. It writes to scratch, as long as they are.
func (t *tally) countGroups(raw, merged []byte, scratch []float32, row int64) {
	g := t.groups
	n := len(raw) / g.Bytes * g.Block
	groups := groupScratch.Get().(*[]quant.Group)
	defer groupScratch.Put(groups)
	if len(*groups) < n/4 {
		*groups = make([]quant.Group, n/4)
	}
	a, b, step := (*groups)[:n/8], (*groups)[n/8:n/4], scratch[:n/g.Sub]
	g.Unpack(a, step, raw)
	g.Unpack(b, step, merged)
	for i := range a {
		if a[i] != b[i] {
			t.rows[row+int64(8*i/t.cols)].changed += 8
		}
	}
}

// ByKind groups tensors by what they are in their layer and by type, in the order of
// first appearance: "attn_q.weight (30)", in models of other names "blocks.*.ffn.0.weight (40)". The numbers are those of the group as a whole.
func (r *Report) ByKind() []*TensorSurvival {
	type group struct {
		t   *TensorSurvival
		all sums
		n   int
	}
	var order []*group
	groups := map[[2]string]*group{}
	for _, t := range r.tallies {
		name := kindOf(t.t.Name)
		key := [2]string{name, t.t.Type}
		g := groups[key]
		if g == nil {
			g = &group{t: &TensorSurvival{Name: name, Type: t.t.Type, Method: t.t.Method}}
			groups[key] = g
			order = append(order, g)
		}
		g.n++
		g.all.add(t.all)
		g.t.Elements += t.t.Elements
	}
	var out []*TensorSurvival
	for _, g := range order {
		g.t.Survival = g.all.survival(g.t.Elements)
		if g.n > 1 {
			g.t.Name = fmt.Sprintf("%s (%d)", g.t.Name, g.n)
		}
		out = append(out, g.t)
	}
	return out
}

// Finish computes the survival of all tensors together, after the plan was run.
func (r *Report) Finish() {
	var all sums
	var n int64
	for _, t := range r.tallies {
		all.add(t.all)
		n += t.t.Elements
	}
	r.Total = all.survival(n)
}
