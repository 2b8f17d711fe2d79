package merge

import "github.com/graft-lora/graft/quant"

func init() {
	register(&Method{Name: "aware", open: openAware,
		Help: "the rounding that merge-aware training computes with: for adapters trained with it the file is what was trained, bit for bit"})
}

// openAware rounds as [quant.Dither] does. Plain float types have no codes and round the
// sum to nearest.
func openAware(t *target) (encoder, error) {
	if !t.typ.Quantized() {
		return openRequantize(t)
	}
	d, err := quant.NewDither(t.typ, t.seed, t.name, t.cols)
	if err != nil {
		return nil, err
	}
	return d.Merge, nil
}
