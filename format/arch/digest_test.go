package arch

import (
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
)

// TestDigestOfForms compares the digests of a folder's tensors with those of the GGUF file
// made of it: rows permuted for rope, experts stacked and embeddings cut, they are the same.
func TestDigestOfForms(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"llama", "mixtral", "phi3", "qwen3moe", "granite"} {
		file, err := Open(testutil.Shared(t, "oracle", "zoo", name, "f32.gguf"), Options{NoVocab: true})
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		folder, err := Open(testutil.Shared(t, "oracle", "zoo", name, "hf"), Options{NoVocab: true})
		if err != nil {
			t.Fatal(err)
		}
		defer folder.Close()
		for _, v := range file.Views {
			want, err := file.TensorDigest(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := folder.TensorDigest(v.Name); err != nil || got != want {
				t.Errorf("%s: %s differs (%v)", name, v.Name, err)
			}
		}
		if _, err := file.TensorDigest("blk.99.attn_q.weight"); err == nil {
			t.Error("a tensor that is not there has a digest")
		}
	}
}
