// Package checkpoint reads and writes model folders as Hugging Face libraries do:
// config.json, tokenizer files, chat templates, and safetensors files with their
// index. [Sniff] tells what kind of model or adapter a path holds.
//
//	c, err := checkpoint.Open("SmolLM2-135M-Instruct")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	hidden, err := c.Config.Int("hidden_size")
//
// Nothing here knows architectures: tensors have the names and layouts of the
// folder, and format/arch maps them. A [Checkpoint] is safe for concurrent
// reading; its tensors are valid until Close.
package checkpoint
