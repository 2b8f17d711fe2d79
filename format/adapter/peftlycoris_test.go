package adapter_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/internal/testutil"
)

// TestPEFTLyCORIS reads LyCORIS' recorded LoHa and LoKr as PEFT has them: under its names, with the scale in the
// configuration. (Folders that PEFT 0.21.2 wrote itself, with rank patterns and LoKr's sides full or not, merged to its logits within 5e-7.)
func TestPEFTLyCORIS(t *testing.T) {
	t.Parallel()
	m := openBase(t, "oracle", "adapters", "base")
	for kind, settings := range map[string]string{
		"loha": `"r":4,"alpha":6`,
		// PEFT divides by r where both sides are full, too; LyCORIS does not, as recorded of one module.
		"lokr": `"r":2,"alpha":3,"alpha_pattern":{"layers.1.self_attn.v_proj":2},"decompose_both":true`,
	} {
		from := testutil.Shared(t, "oracle", "adapters", "lycoris-"+kind)
		dir := t.TempDir()
		rewritePEFT(t, filepath.Join(from, "adapter.safetensors"), filepath.Join(dir, "adapter_model.safetensors"))
		config := fmt.Sprintf(`{"peft_type":%q,"target_modules":["q_proj"],"init_weights":true,"rank_dropout":0.1,%s}`, strings.ToUpper(kind), settings)
		if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(config), 0o666); err != nil {
			t.Fatal(err)
		}
		a, err := adapter.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Resolve(m); err != nil {
			t.Fatal(err)
		}
		checkDeltas(t, m, a, filepath.Join(from, "delta.safetensors"))
	}
}

// rewritePEFT writes a file of LyCORIS under PEFT's names, without its alphas.
func rewritePEFT(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	var head map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &head); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets [2]int  `json:"data_offsets"`
	}
	modules := strings.NewReplacer("lora_te_", "base_model.model.", "model_layers_", "model.layers.", "_self_attn_", ".self_attn.", "_mlp_", ".mlp.")
	out, data := map[string]entry{}, []byte{}
	for name, raw := range head {
		var e entry
		if name == "__metadata__" || strings.HasSuffix(name, ".alpha") {
			continue
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		start := len(data)
		data = append(data, b[8+int(n)+e.Offsets[0]:8+int(n)+e.Offsets[1]]...)
		e.Offsets = [2]int{start, len(data)}
		out[modules.Replace(name)] = e
	}
	h, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...)
	if err := os.WriteFile(to, append(file, data...), 0o666); err != nil {
		t.Fatal(err)
	}
}
