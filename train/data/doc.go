// Package data turns files of text, conversations and questions with answers into
// token sequences with a loss mask.
//
// A file is Parquet, or plain text, JSONL, or a JSON array, and any of these three compressed with gzip
// or zstd; what it is, is told by its content. Each JSON record is one of the shapes
// of the field: {"messages": […]}, {"prompt": …, "completion": …}, {"text": …},
// ShareGPT's and Alpaca's; other names of fields are mapped by [Fields]. A record becomes a [Sample]: token ids, and
// for each whether it is trained, which means that its prediction from the tokens
// before it counts in the loss.
//
// Conversations are rendered by the chat template and tokenized whole, so that the
// tokens are those of deployment. Trained are the answers and the token that ends
// them; see [Encoder.Sample]. What cannot be located exactly is refused, and nothing
// is dropped or cut without being counted in [Stats].
//
//	enc := &data.Encoder{Tokenizer: tok, Template: tmpl, Context: 512}
//	set, err := enc.Read("train.jsonl", data.Fields{Prompt: "question", Completion: "answer"})
//	fmt.Println(set.Stats.Trained, "of", set.Stats.Tokens, "tokens are trained")
//	data.ShowMask(os.Stdout, tok, set.Samples[0], true)
package data
