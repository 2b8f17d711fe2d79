package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

const measureFor = 300 * time.Millisecond

// kernels measures matrix products on one core and on all, beside the peak of a
// core, which is measured before and after each since clocks move.
func kernels(r *report) {
	tier := cpu.Current()
	for _, s := range [][3]int{{512, 1536, 576}, {512, 576, 1536}, {512, 576, 576}, {512, 64, 512}, {1, 1536, 576}} {
		m, n, k := s[0], s[1], s[2]
		x, w, y := fill(m, k), fill(n, k), kernel.NewMat(m, n)
		flops := 2 * float64(m) * float64(n) * float64(k)
		for _, threads := range []int{1, runtime.GOMAXPROCS(0)} {
			pool := kernel.NewPool(threads)
			before := kernel.MeasurePeak(tier)
			seconds := best(measureFor, func() { kernel.MulNT(pool, y, x, w, false) })
			peak := max(before, kernel.MeasurePeak(tier)) * float64(threads)
			pool.Close()
			rate := flops / seconds / 1e9
			r.add(figure{"float32 products", fmt.Sprintf("%dx%dx%d, %d threads", m, n, k, threads), rate, "GFLOP/s", rate / peak, "peak"})
		}
	}
}

func fill(rows, cols int) kernel.Mat {
	m := kernel.NewMat(rows, cols)
	s := rng.New(1, "bench")
	for i := range m.Data {
		m.Data[i] = 2*s.Uniform(uint64(i)) - 1
	}
	return m
}

// codecs measures decoding and encoding on one core, as bytes of float32 a second,
// beside the speed at which the core copies as many.
func codecs(r *report) error {
	const n = 1 << 20
	x := fill(1, n).Data
	y := make([]float32, n)
	copied := 4 * n / best(measureFor, func() { copy(y, x) }) / 1e9
	var encoding []figure
	for _, t := range []format.Type{format.F16, format.BF16, format.Q4_0, format.Q4_1, format.Q5_0, format.Q5_1, format.Q8_0,
		format.Q2_K, format.Q3_K, format.Q4_K, format.Q5_K, format.Q6_K, format.IQ4_NL, format.IQ4_XS, format.IQ3_S, format.IQ3_XXS, format.IQ2_S,
		format.IQ1_M, format.TQ1_0, format.TQ2_0, format.MXFP4, format.NVFP4, format.Q1_0, format.Q2_0} {
		c, err := format.EncoderOf(t)
		if err != nil {
			return err
		}
		size, err := t.RowBytes(n)
		if err != nil {
			return err
		}
		b := make([]byte, size)
		if err := c.Encode(b, x, n, nil); err != nil {
			return err
		}
		rate := 4 * n / best(measureFor, func() { c.Decode(y, b) }) / 1e9
		r.add(figure{"decoding, one core", t.String(), rate, "GB/s of float32", rate / copied, "copying"})
		rate = 4 * n / best(measureFor, func() { c.Encode(b, x, n, nil) }) / 1e9
		encoding = append(encoding, figure{"encoding, one core", t.String(), rate, "GB/s of float32", rate / copied, "copying"})
	}
	r.Figures = append(r.Figures, encoding...)
	return nil
}
