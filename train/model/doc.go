// Package model is the decoder: the forward pass of a language model from any
// weights that decode, the backward pass to the A and B of a LoRA adapter, and
// generation with a key-value cache.
//
// It works in GGUF terms only: an [arch.Model] with GGUF names and layouts,
// whatever the file is. An architecture is a row of the table in archs.go over
// shared blocks, and [Config] is everything the blocks need, as data. What the
// table does not know (an architecture, a rope variant, a tensor that nothing
// here would use) is a [format.UnsupportedError], never silence.
//
// # Weights
//
// Matrices stay as they are stored, mapped: tiles of rows are decoded where they
// are multiplied, once for all tokens in flight. Norm weights and biases are
// decoded when the model is opened. A [Model] is used by one goroutine at a time;
// inside, it works on all its threads. Several [Session]s may hang on one Model,
// but not run at the same time.
//
// # Exactness
//
// The same bytes come out for any number of threads, for every kernel tier, with
// activations kept or recomputed. Work is split over independent outputs only,
// every sum has an order that depends on nothing but the shapes. A packed batch
// gives the bytes of its sequences run one after another (with gradients
// accumulated in that order; only a trained embedding that is the head too has its
// sums in another order), and a [Session] gives the logits of the whole
// sequence run at once, bit for bit.
//
// # Memory
//
// With T tokens in a batch, S the longest sequence, L layers, d = Hidden, q, k and
// o the widths of all query heads, all key (and value) heads and attention's
// output, f the feed-forward width, V the vocabulary, r the rank, W threads, a
// dense model takes so many float32 (4 bytes each), to a few small terms:
//
//	residuals         T·d·(L+1)
//	one layer's acts  T·(3d + q + 2k + o + 3f + 7r), times 1 + Options.KeepLayers;
//	                  norms of heads add q + k, norms after a block d each
//	KeepAttention     T·o for each of the layers that run again
//	backward          T·(3d + 2o + 2q + 2k + 3f)
//	attention         W·2·64·S
//	head              n·(V + 3d), n tokens at a time: n·V·4 is below Options.HeadMemory
//
// [Model.PassMemory] is the exact sum. Buffers are made when a batch first needs
// them and kept for the next; a pass of a size met before allocates next to
// nothing. The weights themselves are in the page cache only, and with
// Options.Stream they are mapped in for about two layers at a time. Nothing grows
// with S·S, and only the residuals (and what is kept) with depth.
//
// The package's example makes one step of training.
package model
