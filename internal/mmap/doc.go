// Package mmap maps files into memory for reading.
//
// A [File] is an io.ReaderAt, and where the system allows it also gives its bytes
// without copying ([File.Map]). Reading through ReadAt never faults; mapped bytes
// do when another program truncates the file meanwhile, so whoever reads them does
// so inside [Guard], which makes an error of it:
//
//	f, err := mmap.Open(path)
//	...
//	err = mmap.Guard(func() error { return parse(f.Map(0, f.Size())) })
//
// All methods but Close are safe for concurrent use. Files are never written to
// through this package.
package mmap
