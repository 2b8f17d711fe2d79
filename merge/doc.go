// Package merge puts adapters into models and says what became of them; it combines,
// extracts, resizes, compares and blends, too.
//
// An adapter is a [Delta] for each tensor that it changes, formed row by row when it
// is needed. [NewPlan] plans a model with deltas merged into it, every tensor in its own
// type; the plan is run by [format.Run], and the [Report] then has the survival of
// every tensor. [Apply] gives the sum in float32 instead, to be converted or quantized
// as any model.
//
// # Methods
//
// Merging into a quantized type means finding codes. With D the wanted change of a row:
//
//	requantize  decode, add, encode: a change small against the step is rounded away
//	keep        scales kept, codes moved by unbiased stochastic rounding: the change
//	            is there on average, with noise where inputs are and where not
//	fit         what counts is the output on real inputs x, whose second moments are H:
//	            scales and minimums by least squares in H, codes by compensated rounding;
//	            H is taken as a diagonal and few directions, so nothing is n x n
//	nest        fit in a finer type that holds the base's values bit for bit
//	promote     fit, and nest for the tensors that lose most ([Promote])
//
// The moments come from whoever runs the model ([Moments]; train.InputMoments is one).
// Without them the last three do what keep does, and refuse types that code weights in groups.
//
// # Contract
//
// The same bytes come out for any number of threads, any memory and any kernels. Deltas
// and models are only read; a plan reads them until it has been run. Memory is that
// of [format.Run] and what NewPlan says.
//
//	base, err := arch.Open("base-q4_0.gguf", arch.Options{})
//	base, deltas, err := merge.Join(base, []merge.Weighted{{Adapter: lesson, Factor: 1}})
//	plan, report, err := merge.NewPlan(base, deltas, merge.Options{Method: "fit", Moments: moments})
//	// … gguf.Create, format.Run …
//	report.Finish()
//	fmt.Println(report.Total.GainOnInputs, report.Total.ErrorOnInputs)
package merge
