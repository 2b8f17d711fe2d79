package train

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/graft-lora/graft/format/checkpoint"
)

// findStops finds the tokens at which a generation of the deployed model ends. For a GGUF
// file they are what llama.cpp makes of it, which the tokenizer knows. A Hugging Face
// folder may say it in generation_config.json, which is what transformers and vllm go by:
// then these are the only ones.
func (b *Base) findStops() error {
	if st, err := os.Stat(b.Path); err != nil || !st.IsDir() {
		return nil
	}
	path := filepath.Join(b.Path, checkpoint.GenerationConfigName)
	text, err := os.ReadFile(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	var g struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(text, &g); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(g.EOS) == 0 || string(g.EOS) == "null" {
		return nil
	}
	var one int32
	if json.Unmarshal(g.EOS, &one) == nil {
		b.stops = []int32{one}
		return nil
	}
	if err := json.Unmarshal(g.EOS, &b.stops); err != nil {
		return fmt.Errorf("%s: eos_token_id: %w", path, err)
	}
	return nil
}

// stopper says whether the deployed model stops at a token; nil leaves it to the tokenizer.
func (b *Base) stopper() func(int32) bool {
	if b.stops == nil {
		return nil
	}
	return func(id int32) bool { return slices.Contains(b.stops, id) }
}
