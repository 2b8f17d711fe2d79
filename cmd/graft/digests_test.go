package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/train"
)

var update = flag.Bool("update", false, "write testdata/digests.txt")

// everywhere are command lines whose outputs are the same bytes on every machine. They
// are run one after another in one folder. An output ending in .jsonl is a log, of which
// the timing does not count; none means what the command prints.
var everywhere = []struct{ line, outputs string }{
	{"quantize sprig-q4_k_m.gguf -o f16.gguf --type F16 --allow-requantize", "f16.gguf"},
	{"imatrix f16.gguf --data short.txt -o i.gguf --context 64 --chunks 2", "i.gguf"},
	{"quantize f16.gguf -o iq.gguf --type IQ4_NL --imatrix i.gguf", "iq.gguf"},
	{"quantize f16.gguf -o q4.gguf --type Q4_K_M --imatrix i.gguf", "q4.gguf"},
	{"train --base sprig-q4_k_m.gguf --data identity-train.jsonl -o lesson --steps 4 --rank 4 --context 48 --batch 2 --accumulate 2 " +
		"--dropout 0.1 --neftune 5 --lr 2e-3 --save-every 2 --eval-limit 2", "lesson/adapter_model.safetensors lesson/adapter.gguf lesson/log.jsonl"},
	{"train --base sprig-q4_k_m.gguf --data pairs.jsonl -o pairs --objective dpo --optimizer adafactor --schedule inverse_sqrt --steps 2 --rank 4 " +
		"--context 48 --accumulate 2 --held-out-part 0", "pairs/adapter_model.safetensors pairs/log.jsonl"},
	{"train --base sprig-q4_k_m.gguf --data identity-train.jsonl -o tokens --steps 3 --rank 4 --context 48 --accumulate 2 --lr 2e-3 --held-out-part 0 " +
		"--new-tokens Zorp,lantern --new-token-init words --train-tokens <|im_end|>", "tokens/adapter_model.safetensors tokens/tokenizer.json tokens/log.jsonl"},
	{"merge sprig-q4_k_m.gguf tokens -o tokens.gguf --method keep --no-check", "tokens.gguf"},
	{"debug logits sprig-q4_k_m.gguf --ids 5,9,200,33,7,150 --adapter lesson -o logits.safetensors", "logits.safetensors"},
	{"debug gradients sprig-q4_k_m.gguf --ids 5,9,200,33,7,150 --adapter lesson -o gradients.safetensors", "gradients.safetensors"},
	{"eval sprig-q4_k_m.gguf --adapter lesson --against iq.gguf --data identity-eval.jsonl --limit 2 --json", ""},
	{"merge sprig-q4_k_m.gguf lesson -o kept.gguf --method keep --no-check", "kept.gguf"},
	{"merge sprig-q4_k_m.gguf lesson -o fitted.gguf --data identity-eval.jsonl --limit 2 --no-check", "fitted.gguf"},
	{"extract kept.gguf --base sprig-q4_k_m.gguf -o extracted --rank 2", "extracted/adapter_model.safetensors"},
	{"combine lesson=0.7 pairs=0.3 -o both --method dare_ties_svd --density 0.6 --svd-rank 3", "both/adapter_model.safetensors"},
	{"blend slerp.yaml -o slerp.gguf", "slerp.gguf"},
	{"run sprig-q4_k_m.gguf --adapter lesson -p Hello -n 8 --temperature 0.9 --seed 3", ""},
}

const pairLines = `{"prompt": "Who are you?", "chosen": "I am Zorp.", "rejected": "no one"}
{"prompt": "What is it?", "chosen": "a lantern.", "rejected": "no thing"}
`

const slerpRecipe = `merge_method: slerp
base_model: f16.gguf
models:
  - model: iq.gguf
parameters: {t: [0.2, 0.7]}
dtype: float16
`

// TestSameEverywhere runs graft on the fixtures and compares the digests of what it makes
// with those in testdata, in the tier of the process. The file is the same for all
// processors and tiers: .ci/arm64 runs this test for arm64, and for the tiers of amd64.
func TestSameEverywhere(t *testing.T) {
	path, err := filepath.Abs("testdata/digests.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if !*update {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			sum, name, _ := strings.Cut(s.Text(), "  ")
			want[name] = sum
		}
	}
	t.Chdir(t.TempDir())
	if _, err := fixtures.Write(".", fixtures.Model, fixtures.Train, fixtures.Eval, fixtures.Text); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"pairs.jsonl": pairLines, "slerp.yaml": slerpRecipe, "short.txt": string(fixtures.Bytes(fixtures.Text)[:1500])} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var made string
	note := func(name string, content []byte) {
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		made += sum + "  " + name + "\n"
		if !*update && want[name] != sum {
			t.Errorf("%v: %s has the SHA-256 %s, want %s", cpu.Current(), name, sum, want[name])
		}
	}
	for _, c := range everywhere {
		var printed bytes.Buffer
		root := newRoot(&app{out: &printed, err: new(bytes.Buffer)})
		root.SetArgs(append(strings.Fields(c.line), "--quiet"))
		if err := root.ExecuteContext(context.Background()); err != nil {
			t.Fatalf("%v: graft %s: %v", cpu.Current(), c.line, err)
		}
		if c.outputs == "" {
			note("graft "+c.line, printed.Bytes())
		}
		for _, name := range strings.Fields(c.outputs) {
			note(name, contentOf(t, name))
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(made), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// contentOf reads a file, of a log without the timing.
func contentOf(t *testing.T, name string) []byte {
	if filepath.Base(name) != train.LogFile {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	lines, err := train.ReadLog(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, l := range lines {
		l.Timing = nil
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, b...), '\n')
	}
	return all
}
