// Package train teaches a model with an adapter: it runs the training of a LoRA on a
// frozen base of any stored type, evaluates, and generates text.
//
// [Run] is a whole run, from files to files, with settings in a [Config]. The base is
// opened with [OpenBase] and never changed; what is learned is an adapter in float16,
// updated through float32 masters, and written both as a PEFT folder and as a GGUF
// adapter. The result depends on the files, the settings and the seed only: not on
// the number of threads, the memory given, the kernel tier, or on how often the run
// was killed and resumed.
//
//	c := train.DefaultConfig()
//	c.Base, c.Data, c.Output = "model-q4_k_m.gguf", "lesson.jsonl", "lesson"
//	result, err := train.Run(ctx, c, train.Fresh, func(p train.Progress) {
//		fmt.Printf("\r%d/%d loss %.3f", p.Done, p.Total, p.Loss)
//	})
//
// The parts are usable by themselves: train/data makes samples, train/model computes,
// train/optim updates.
package train
