// Package optim updates parameters from their gradients: optimizers, schedules of
// the learning rate, and clipping of the gradient's norm.
//
// Everything is float32 arithmetic in a fixed order without fused multiply-adds,
// so that the same gradients give the same parameters on every machine. AdamW, SGD
// and their settings are those of torch.optim; schedules are those of transformers,
// with their quirks (a warm-up begins at a rate of zero, a cosine rises again past
// its end), so that a recipe can be carried over as it is.
//
// An [Optimizer] owns its state and borrows the parameters it was made with:
// it writes their values and may use the memory of their gradients. It is not safe
// for concurrent use.
//
//	params := []optim.Param{{Name: "a", Rows: 1, Cols: 2, Value: w, Grad: g, Rate: 1}}
//	opt, err := optim.New(optim.DefaultSettings("adamw"), params)
//	rate, err := optim.NewSchedule(optim.ScheduleSettings{Name: "cosine", Warmup: 5, Total: 100}, 2e-4)
//	for step := range 100 {
//		// … gradients into g …
//		optim.ClipNorm(params, 1, 2)
//		opt.Step(rate(step))
//	}
package optim
