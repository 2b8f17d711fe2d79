// Package arch knows the language-model architectures: how their tensors are
// called in GGUF and in Hugging Face checkpoints, what happens to a tensor
// between the two (rows of query and key heads reordered for rope, one added to
// a norm, experts stacked), and which metadata keys follow from a config.json.
//
// One table per architecture says all this, and it is read in either direction:
// [Open] turns a Hugging Face folder into the GGUF view of it, [Model.HF] gives
// the Hugging Face view of a GGUF file, and format/adapter asks it
// how a module is called. Nothing is converted before rows are asked for; views
// whose rows only move are still format.RawReaders, so that they are
// copied byte for byte.
//
//	m, err := arch.Open("SmolLM2-135M-Instruct", arch.Options{})
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	q := m.View("blk.0.attn_q.weight") // rows in GGUF's order, whatever the source
//
// Accounting is strict: every tensor of a source folder is mapped, folded into
// another, known to be of no use to a text model, or an error that names it.
package arch
