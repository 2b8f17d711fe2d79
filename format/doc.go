// Package format holds the nouns that every graft tool shares: the type of a
// tensor's elements ([Type]), a tensor stored in a file ([Tensor]), a tensor as
// graft sees it after names and layouts are mapped ([View]), a source of rows
// ([RowReader]), what a command is going to write ([Plan]) and the one runner
// that writes it ([Run]).
//
// Conventions:
//   - Shapes are row-major: the last dimension is the length of a row and is
//     contiguous. GGUF's reversed order stays inside format/gguf.
//   - "Rows" of a tensor of more than two dimensions are all its rows,
//     flattened: a stack of e matrices of r rows has e*r rows.
//   - Everything that reads ([RowReader], [Tensor]) may be used by several
//     goroutines at once. Slices passed in stay the caller's.
//   - Bytes of a file never cause a panic: they are a [CorruptError] or an
//     [UnsupportedError].
package format
