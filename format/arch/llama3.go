package arch

import (
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/fmath"
)

// Llama3Scaling are the parameters of rope_type llama3.
type Llama3Scaling struct {
	Factor, Low, High float64
	Original          int64 // original_max_position_embeddings
}

// FindLlama3Scaling recovers the parameters from the factors that a GGUF file holds
// in rope_freqs.weight. Factors that no such parameters give are unsupported.
func FindLlama3Scaling(m *Model) (*Llama3Scaling, error) {
	v := m.View("rope_freqs.weight")
	if v == nil {
		return nil, nil
	}
	base, ok := m.Meta.Float(m.Arch + ".rope.freq_base")
	if !ok {
		base = 10000
	}
	n, err := format.Elements(v.Shape)
	if err != nil || n == 0 || n > 1<<12 {
		return nil, format.Unsupported("rope_freqs.weight of shape %v", v.Shape)
	}
	factors := make([]float32, n)
	if err := v.Rows.ReadRows(factors, 0); err != nil {
		return nil, err
	}
	s := &Llama3Scaling{Low: 1, High: 4, Factor: 1}
	for _, f := range factors {
		s.Factor = math.Max(s.Factor, float64(f))
	}
	// Only ratios show in the factors, so that the bounds are taken as they always are.
	for s.Original = 1; s.Original <= 1<<24; s.Original *= 2 {
		if s.gives(factors, base) {
			return s, nil
		}
	}
	if s.fit(factors, base) && s.gives(factors, base) {
		return s, nil
	}
	return nil, format.Unsupported("the factors in rope_freqs.weight are not those of rope_type llama3")
}

// gives says whether s yields the factors, within the rounding of a power.
func (s *Llama3Scaling) gives(factors []float32, base float64) bool {
	got := llama3Table(float32(base), float32(s.Factor), float32(s.Low), float32(s.High), float32(s.Original), int64(2*len(factors)))
	for i, f := range factors {
		if math.Abs(float64(got[i]-f)) > 1e-5*math.Abs(float64(f)) {
			return false
		}
	}
	return true
}

// fit computes high and original from two of the blended factors: with f the factor
// and w the wave length, (1/f - 1/Factor) / (1 - 1/Factor) is the smooth part
// (Original/w - Low) / (High - Low), a line in 1/w.
func (s *Llama3Scaling) fit(factors []float32, base float64) bool {
	var x, y []float64
	for i, f := range factors {
		if f > 1 && float64(f) < s.Factor {
			wave := 2 * math.Pi * fmath.Pow(base, float64(i)/float64(len(factors)))
			x = append(x, 1/wave)
			y = append(y, (1/float64(f)-1/s.Factor)/(1-1/s.Factor))
		}
	}
	if len(x) < 2 {
		return false
	}
	last := len(x) - 1
	slope := (y[last] - y[0]) / (x[last] - x[0])
	cross := float64(slope*x[0]) - y[0] // Low / (High - Low)
	if cross <= 0 {
		return false
	}
	s.High = math.Round((s.Low/cross+s.Low)*1e3) / 1e3
	s.Original = int64(math.Round(slope * (s.High - s.Low)))
	return s.Original > 0
}
