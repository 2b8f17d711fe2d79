package train

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// Sensitivities measures, for each kind of tensor that can be quantized, how far the
// predictions on samples move when all tensors of that kind, and no others, are put
// to three or four bits: the KL divergence from the model itself, divided by the sum
// of the noise (see [quant.Noisy]). It is what [quant.Target] asks for. m is the
// importance matrix, or nil. limit is how many tokens are run at once; progress, if
// not nil, is told which kind is being measured.
func (b *Base) Sensitivities(ctx context.Context, samples []data.Sample, m *quant.Imatrix, limit int, opt model.Options, progress func(kind string)) (map[string]float64, error) {
	kinds := map[string]bool{}
	for _, v := range b.Source.Views {
		if kind := quant.TargetKind(v); kind != "" {
			kinds[kind] = true
		}
	}
	found := map[string]float64{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if progress != nil {
			progress(kind)
		}
		noise, kl, err := b.divergenceOfNoisy(ctx, kind, samples, m, limit, opt)
		if err != nil {
			return nil, fmt.Errorf("%s: noise in %s: %w", b.Path, kind, err)
		}
		if noise > 0 && kl > 0 {
			found[kind] = kl / noise
		}
	}
	return found, nil
}

// divergenceOfNoisy gives the noise of all tensors of a kind and the divergence that
// it makes.
func (b *Base) divergenceOfNoisy(ctx context.Context, kind string, samples []data.Sample, m *quant.Imatrix, limit int, opt model.Options) (noise, kl float64, err error) {
	views := make([]*format.View, len(b.Source.Views))
	for i, v := range b.Source.Views {
		views[i] = v
		if quant.TargetKind(v) != kind {
			continue
		}
		var n float64
		if views[i], n, err = quant.Noisy(ctx, v, m); err != nil {
			return 0, 0, err
		}
		noise += n
	}
	if noise == 0 {
		return 0, 0, nil
	}
	noisy, err := model.New(arch.NewModel(b.Path, b.Source.Meta, views), opt)
	if err != nil {
		return 0, 0, err
	}
	defer noisy.Close()
	d, err := Compare(ctx, Side{Model: b.Model}, Side{Model: noisy}, samples, limit, nil)
	return noise, d.KL, err
}
