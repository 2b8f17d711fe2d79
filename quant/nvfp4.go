package quant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/graft-lora/graft/format"
)

// An NVFP4 block has scales of 8 bits whose smallest is 2^-9: weights of a model are too
// small for them as they are. A matrix is therefore divided by a factor of its own, which
// stands in a tensor beside it, "blk.0.attn_q.scale" for "blk.0.attn_q.weight", one number
// for each matrix of a stack; llama.cpp multiplies with it what comes out of the product. The
// factor makes the largest magnitude of the matrix the largest value a block can hold.

// nvfp4Largest is the largest value of a block: the largest scale times the largest level.
const nvfp4Largest = 448 * 6

// scaledKinds are the matrices of a layer that llama.cpp reads a factor for.
var scaledKinds = []string{
	"attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "ffn_gate", "ffn_down", "ffn_up", "ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp",
	"ffn_gate_exps", "ffn_down_exps", "ffn_up_exps", "ssm_in", "ssm_out",
}

// ScaleName is the name of the tensor that holds the factor of a matrix, or "" for tensors
// that have none.
func ScaleName(tensor string) string {
	base, ok := strings.CutSuffix(tensor, ".weight")
	if !ok || layerOf(tensor) < 0 || !slices.Contains(scaledKinds, kindOf(tensor)) {
		return ""
	}
	return base + ".scale"
}

// nvfp4 is the recipe of NVFP4: matrices that can have a factor, and whole blocks, become it.
func (s *mixture) nvfp4(t TensorDesc) (format.Type, string) {
	if ScaleName(t.Name) != "" && t.Shape[len(t.Shape)-1]%nvfp4Block == 0 {
		return format.NVFP4, "a matrix of a layer"
	}
	return format.Q8_0, "no matrix with a factor of its own"
}

// scaledOutputs makes the two outputs of a matrix that becomes NVFP4: its factors and the
// matrix divided by them. The factors take a reading of the matrix, when its turn comes.
func scaledOutputs(name string, v *format.View) ([]*format.Output, error) {
	s := &scaledRows{RowReader: v.Rows, factors: make([]float32, matrices(v.Shape)), perMatrix: v.Shape[len(v.Shape)-2]}
	factors, err := format.NewOutput(ScaleName(name), format.F32, []int64{int64(len(s.factors))}, &floatRows{s.factors, int64(len(s.factors))}, nil)
	if err != nil {
		return nil, err
	}
	factors.Prepare, factors.Why = s.prepare, "factor of the matrix, its largest magnitude over that of a block"
	weight, err := format.NewOutput(name, format.NVFP4, v.Shape, s, nil)
	if err != nil {
		return nil, err
	}
	weight.Prepare = s.prepare
	return []*format.Output{factors, weight}, nil
}

// scaledRows are rows divided by the factor of their matrix.
type scaledRows struct {
	format.RowReader
	once      sync.Once
	err       error
	factors   []float32
	perMatrix int64
}

// prepare finds the factors; after the first call it does nothing.
func (s *scaledRows) prepare(ctx context.Context) error {
	s.once.Do(func() { s.err = s.measure(ctx) })
	return s.err
}

func (s *scaledRows) measure(ctx context.Context) error {
	rows, cols := s.Dims()
	batch := max(1, (1<<18)/max(cols, 1))
	buf := make([]float32, min(batch, rows)*cols)
	for row := int64(0); row < rows; {
		if err := ctx.Err(); err != nil {
			return err
		}
		matrix := row / s.perMatrix
		n := min(batch, (matrix+1)*s.perMatrix-row)
		x := buf[:n*cols]
		if err := s.RowReader.ReadRows(x, row); err != nil {
			return err
		}
		if i := firstNonFinite(x); i >= 0 {
			return &format.RowError{Row: row + int64(i)/cols, Err: fmt.Errorf("column %d: %v cannot be encoded as %v", int64(i)%cols, x[i], format.NVFP4)}
		}
		_, amax := extreme(x)
		s.factors[matrix] = max(s.factors[matrix], amax)
		row += n
	}
	for i, amax := range s.factors {
		// A factor that is zero, or too small to divide by, would be of no use.
		if s.factors[i] = amax / nvfp4Largest; s.factors[i] < 0x1p-126 {
			s.factors[i] = 1
		}
	}
	return nil
}

func (s *scaledRows) ReadRows(dst []float32, row int64) error {
	if err := s.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, cols := s.Dims()
	for ; len(dst) > 0; dst, row = dst[cols:], row+1 {
		f := s.factors[row/s.perMatrix]
		for i := range dst[:cols] {
			dst[i] /= f
		}
	}
	return nil
}

// Release gives back the pages of the matrix.
func (s *scaledRows) Release() {
	if r, ok := s.RowReader.(interface{ Release() }); ok {
		r.Release()
	}
}
