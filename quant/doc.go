// Package quant encodes and decodes the block types of ggml, chooses the type of
// each tensor of a file as llama-quantize does, and reads and writes importance
// matrices. Importing it registers all its codecs with [format.RegisterCodec].
//
// # Contract
//
//   - Decoding gives the float32 values that ggml gives, bit for bit.
//   - Encoding gives the bytes of ggml's scalar reference built without fused
//     multiply-add, on every machine: wherever a product is added to something it
//     is rounded first, float32(a*b) + c. One case of IQ3_S, where ggml loses
//     values, is an exception: see encodeIQ3S.
//   - No importance matrix and one of all ones are different algorithms with
//     different bytes, as in ggml. Types that ignore the matrix accept one.
//   - Input that is not finite, and a block whose scale does not fit its 16 bits,
//     are errors that name the row. Bytes that are decoded may be anything.
//   - Codecs keep no state: they may be used by several goroutines at once, do not
//     keep the slices they are given, and allocate nothing per block.
//
// # Choosing types
//
// A recipe ([Recipe]) is what a file type such as Q4_K_M means: which tensors get
// which type. [Recipe.Types] is a pure function of a [Model], the short
// description of names and shapes; each [Choice] says which rule made it.
// [NewPlan] turns a source and a recipe into a plan and the metadata of the file:
//
//	r := quant.Recipe{FileType: quant.Q4_K_M}
//	plan, meta, err := quant.NewPlan(src, quant.Options{Recipe: r})
//
// # bitsandbytes
//
// [HoldNF4], [HoldFP4] and [HoldINT8] quantize rows as bitsandbytes does and hold
// them in memory as a [format.RowReader] that decodes what it is asked for.
// [OpenBnB] finds in a checkpoint the tensors of a matrix that bitsandbytes saved;
// importing this package makes such folders known to format/arch.
package quant
