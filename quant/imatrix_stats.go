package quant

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// SetEntries makes entries, by tensor, those of m, in the order of their names, and
// counts the pieces anew. The entries are m's from then on.
func (m *Imatrix) SetEntries(entries map[string]*ImatrixEntry) {
	list := make([]ImatrixEntry, 0, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		list = append(list, *entries[name])
	}
	m.Entries = list
	m.countChunks()
}

// countChunks makes Chunks what the tensor with the most tokens says.
func (m *Imatrix) countChunks() {
	m.Chunks = 0
	for _, e := range m.Entries {
		m.Chunks = max(m.Chunks, int(slices.Max(e.Counts))/max(m.ChunkSize, 1))
	}
}

// TensorStatistics describes the mean squares of the inputs of one tensor, as
// llama-imatrix --show-statistics does.
type TensorStatistics struct {
	Tensor  string  `json:"tensor"`
	Layer   int     `json:"layer"` // -1 for tensors of no layer
	Sum     float32 `json:"sum"`   // of the mean squares of all columns
	Min     float32 `json:"min"`
	Max     float32 `json:"max"`
	Mean    float32 `json:"mean"`
	Dev     float32 `json:"stddev"`
	Active  float32 `json:"active"`       // part of the columns above 1e-5
	Columns int     `json:"columns"`      // of the matrices that saw a token
	Entropy float32 `json:"entropy"`      // of the columns' shares in the sum, in bits
	Evenly  float32 `json:"entropy_norm"` // Entropy over that of equal shares
	ZD      float32 `json:"zd"`           // part of the columns above Mean + Dev
	// CosSim is the cosine of the sums with those of the same tensor one layer
	// below; 0 where there is none.
	CosSim float32 `json:"cossim"`
}

// LayerStatistics are means over the tensors of a layer, by their columns.
type LayerStatistics struct {
	Layer  int     `json:"layer"`
	Sum    float32 `json:"sum"`
	ZD     float32 `json:"zd"`
	CosSim float32 `json:"cossim"`
}

// Statistics describes the tensors of m, sorted by the kind of tensor and then by
// falling sums, and the layers. Sums are taken in float32 in the order of the
// columns, as llama-imatrix takes them, so that the digits it prints are the same.
func (m *Imatrix) Statistics() ([]TensorStatistics, []LayerStatistics, error) {
	var list []TensorStatistics
	for i := range m.Entries {
		s, ok := m.Entries[i].statistics()
		if !ok {
			continue // no token reached it
		}
		if s.Layer > 0 {
			below := fmt.Sprintf("blk.%d.%s", s.Layer-1, strings.SplitN(s.Tensor, ".", 3)[2])
			if prev := m.Entry(below); prev != nil && len(prev.Sums) == len(m.Entries[i].Sums) {
				a, b := m.Entries[i].Sums, prev.Sums
				s.CosSim = dot32(a, b) / float32(sqrt32(dot32(a, a))*sqrt32(dot32(b, b)))
			}
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, nil, errors.New("the importance matrix has no statistics: no tensor saw a token")
	}
	slices.SortStableFunc(list, func(a, b TensorStatistics) int {
		return cmp.Or(strings.Compare(kindOf(a.Tensor), kindOf(b.Tensor)), cmp.Compare(b.Sum, a.Sum))
	})
	return list, layerStatistics(list), nil
}

func (e *ImatrixEntry) statistics() (TensorStatistics, bool) {
	var x []float32
	cols := len(e.Sums) / len(e.Counts)
	for i, v := range e.Sums {
		if c := e.Counts[i/cols]; c > 0 {
			x = append(x, v/c)
		}
	}
	if len(x) == 0 {
		return TensorStatistics{}, false
	}
	s := TensorStatistics{Tensor: e.Name, Layer: layerOf(e.Name), Columns: len(x), Min: slices.Min(x), Max: slices.Max(x)}
	n := float32(len(x))
	inactive := 0
	for _, v := range x {
		s.Sum += v
		if math.Abs(float64(v)) <= float64(float32(1e-5)) {
			inactive++
		}
	}
	s.Mean = s.Sum / n
	s.Dev = sqrt32(max(0, dot32(x, x)/n-float32(s.Mean*s.Mean)))
	s.Active = 1 - float32(inactive)/n
	above := 0
	for _, v := range x {
		if p := v / s.Sum; s.Sum > 0 && p > 0 {
			s.Entropy -= float32(p * float32(math.Log2(float64(p))))
		}
		if s.Dev > 0 && (v-s.Mean)/s.Dev > 1 {
			above++
		}
	}
	if len(x) > 1 {
		s.Evenly = s.Entropy / float32(math.Log2(float64(len(x))))
	}
	s.ZD = float32(above) / n
	return s, true
}

func layerStatistics(list []TensorStatistics) []LayerStatistics {
	type sums struct{ sum, zd, cossim, columns float32 }
	layers := map[int]*sums{}
	for _, s := range list {
		l := layers[s.Layer]
		if l == nil {
			l = &sums{}
			layers[s.Layer] = l
		}
		n := float32(s.Columns)
		l.sum += float32(n * s.Sum)
		l.zd += float32(n * s.ZD)
		l.cossim += float32(n * s.CosSim)
		l.columns += n
	}
	var out []LayerStatistics
	for _, layer := range slices.Sorted(maps.Keys(layers)) {
		if l := layers[layer]; layer >= 0 {
			out = append(out, LayerStatistics{layer, l.sum / l.columns, l.zd / l.columns, l.cossim / l.columns})
		}
	}
	return out
}

// kindOf is what a tensor is called in its layer: attn_q.
func kindOf(tensor string) string {
	parts := strings.Split(tensor, ".")
	if i := slices.Index(parts, "weight"); i > 0 {
		return parts[i-1]
	}
	return tensor
}

// Row gives the statistics in the columns and digits of llama-imatrix, after the
// layer and the kind.
func (s TensorStatistics) Row() []string {
	layer := "-"
	if s.Layer >= 0 {
		layer = strconv.Itoa(s.Layer)
	}
	f := func(format string, v float32) string { return fmt.Sprintf(format, v) }
	return []string{layer, kindOf(s.Tensor), f("%.2f", s.Sum), f("%.4f", s.Min), f("%.4f", s.Max), f("%.2f", s.Mean), f("%.2f", s.Dev),
		f("%.2f%%", 100*s.Active), strconv.Itoa(s.Columns), f("%.4f", s.Entropy), f("%.2f%%", 100*s.Evenly), f("%.2f%%", 100*s.ZD), f("%.4f", s.CosSim)}
}

func dot32(a, b []float32) float32 {
	var s float32
	for i, v := range a {
		s += float32(v * b[i])
	}
	return s
}
