// Package safetensors reads and writes safetensors files and folders of them.
//
// Reading is as strict as the reference implementation (no holes, no overlap, no
// bytes left over, all 22 dtypes with the 8-, 6- and 4-bit floats) and refuses in
// addition what JSON parsers disagree about: names that stand there twice. Every
// error is a [format.CorruptError] with the byte offset, or a
// [format.UnsupportedError] for a dtype that nobody has defined. Nothing of a
// tensor is read when a file is opened.
//
//	f, err := safetensors.Open("model.safetensors") // or OpenDir for a folder with an index
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	for _, t := range f.Tensors { // in the order of the data
//		fmt.Println(t.Name, t.Type, t.Shape)
//	}
//
// A [Writer] is the [format.Sink] of a plan; for the same tensors its bytes are
// those of the reference implementation.
//
// Files are safe for concurrent reading; Tensors and their bytes are valid until
// Close. A Writer is used by one goroutine.
package safetensors
