// Package gguf reads and writes GGUF files: models, adapters and importance
// matrices of the ggml family.
//
// Versions 2 and 3 are read, in either byte order; version 3, little endian, is
// written. Reading is as strict as the reference reader of ggml: no holes between
// tensors, no duplicate names, no lengths beyond the file; every error is a
// [format.CorruptError] with the byte offset, or a [format.UnsupportedError] for
// what graft does not read (nested arrays, tensor types of forks). No length is
// allocated before it was compared with the bytes that remain.
//
// Shapes are row-major, the reverse of what stands in the file.
//
//	f, err := gguf.Open("model.gguf") // any shard of a split model opens all of it
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	name, _ := f.Meta.Str("general.name")
//	for _, t := range f.Tensors {
//		fmt.Println(name, t.Name, t.Type, t.Shape)
//	}
//
// A [Writer] is the [format.Sink] of a plan. It knows every offset before the
// first byte ([LayoutOf]), and its files get their names when all of it is written.
//
// Files are safe for concurrent reading; Tensors and their bytes are valid until
// Close. A Meta must not be changed while others read it. A Writer is used by one
// goroutine.
package gguf
