// Package adapter reads and writes LoRA adapters: PEFT folders, GGUF adapters, MLX
// folders and kohya files. Whatever the source, an [Adapter] is a list of pairs
// with one meaning: the change of a matrix W (out x in) is Scale * B * A, with A of
// Rank x in and B of out x Rank; a pair with a Magnitude is DoRA. Beside its pairs it may
// have whole rows of the embedding and the head, for tokens that the base may lack.
//
// Sources differ in the names of matrices and in the order of rows. [Open] keeps
// both as they stand in the file; [Adapter.Resolve] brings them to a base model's
// terms (GGUF tensor names, rows as in GGUF), checking that every pair has a matrix
// that it fits. The writers need a resolved adapter, since their formats want
// either terms.
//
//	a, err := adapter.Open("my-lora") // or my-lora.gguf
//	if err != nil {
//		return err
//	}
//	if err := a.Resolve(base); err != nil {
//		return err // names the pair that fits nothing
//	}
//	err = adapter.WriteGGUF("my-lora.gguf", a, adapter.WriteOptions{})
//
// The scale is exact: alpha/r, alpha/sqrt(r) with rslora, by module where patterns
// say so, and what MLX and kohya mean by theirs. Formats with one alpha for all get
// B multiplied where a pair's differs, so that every program that reads the file
// computes the same change. What a format cannot express is refused, by name.
//
// An Adapter holds its matrices in memory as float32. It is not safe for concurrent
// use while it is resolved or changed.
package adapter
