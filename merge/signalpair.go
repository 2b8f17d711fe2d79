package merge

import (
	"context"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/kernel"
)

// signalOf counts the singular values of a difference m that stand out of noise; l are its leading ones.
//
// What a type makes of weights is no noise alone: it cuts off and draws together, most where they are largest, which has few
// directions as a change has. It is in both, and so in no difference, where the one tensor is brought to the type of
// the other. A change is in every such difference: the least of the counts is the one.
func signalOf(ctx context.Context, pool *kernel.Pool, base, tuned *format.View, m slice, l LowRank, s *sketch, opt ExtractOptions) (int, error) {
	signal, err := signalRank(ctx, pool, m, l, s, opt.Seed)
	if err != nil || base.Type == tuned.Type {
		return signal, err
	}
	for _, d := range []Difference{{tuned.Rows, brought(base.Rows, tuned.Type)}, {brought(tuned.Rows, base.Type), base.Rows}} {
		if signal == 0 || d.Base == nil || d.Tuned == nil {
			continue
		}
		m := slice{d, m.first, m.rows}
		l, s, err := truncatedSVD(ctx, pool, m, Cut{Rank: opt.Cut.Rank}, opt.Seed)
		if err != nil {
			return 0, err
		}
		if s.norm() == 0 {
			return 0, nil
		}
		there, err := signalRank(ctx, pool, m, l, s, opt.Seed)
		if err != nil {
			return 0, err
		}
		signal = min(signal, there)
	}
	return signal, nil
}

// broughtRows are rows as a type would store them.
type broughtRows struct {
	format.RowReader
	codec    format.Codec
	rowBytes int64
}

// brought is r in a type that quantizes; nil if it is none, or one whose encoder cannot do without an importance matrix.
func brought(r format.RowReader, typ format.Type) format.RowReader {
	if !typ.Quantized() {
		return nil
	}
	_, cols := r.Dims()
	codec, err := format.EncoderOf(typ)
	if err != nil {
		return nil
	}
	rowBytes, err := typ.RowBytes(cols)
	if err != nil || codec.Encode(make([]byte, rowBytes), make([]float32, cols), int(cols), nil) != nil {
		return nil
	}
	return &broughtRows{r, codec, rowBytes}
}

func (b *broughtRows) ReadRows(dst []float32, row int64) error {
	if err := b.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, cols := b.Dims()
	stored := make([]byte, int64(len(dst))/cols*b.rowBytes)
	if err := b.codec.Encode(stored, dst, int(cols), nil); err != nil {
		return err
	}
	b.codec.Decode(dst, stored)
	return nil
}
