// Package convert plans conversions of whole models: [ToGGUF] from anything that
// format/arch opens, [ToHF] to a Hugging Face folder. A plan is made from headers;
// format.Run carries it out, a few rows at a time, within its memory budget.
//
// What [ToGGUF] plans for a Hugging Face folder is, key by key and byte by byte,
// what the reference converter of llama.cpp writes. [ToHF] writes what that
// converter and the transformers library read, tokenizer included; where no
// quantization is between, a folder that went to GGUF and back has its bytes again.
//
//	m, err := arch.Open("Qwen3-0.6B", arch.Options{})
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	meta, plan, err := convert.ToGGUF(m, "q8_0")
//	if err != nil {
//		return err
//	}
//	w, err := gguf.Create("qwen3.gguf", meta, plan, gguf.WriteOptions{})
//
// Package quant must be imported for its codecs.
package convert
