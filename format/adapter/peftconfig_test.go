package adapter_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format/adapter"
)

// peftFolder writes a PEFT adapter of one 2 x 2 matrix, rank 1, with a configuration that has settings besides.
func peftFolder(t *testing.T, settings string) string {
	t.Helper()
	dir := t.TempDir()
	config := `{"peft_type":"LORA","target_modules":["q_proj"],` + settings + `}`
	if !json.Valid([]byte(config)) {
		t.Fatal(config)
	}
	head := `{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},` +
		`"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}}`
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	file = append(file, head...)
	for range 4 {
		file = append(file, 0, 0, 0x80, 0x3f)
	}
	for name, b := range map[string][]byte{"adapter_config.json": []byte(config), "adapter_model.safetensors": file} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestConfigTypes: a setting of another type than PEFT's is an error that names it, not the default in its place.
func TestConfigTypes(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		`"r":1,"lora_alpha":16`:                       "",
		`"r":1,"lora_alpha":16,"use_rslora":null`:     "",
		`"r":1,"lora_alpha":"16"`:                     `lora_alpha: "16" is no number`,
		`"r":1,"lora_alpha":null`:                     `lora_alpha: null is no number`,
		`"r":"1","lora_alpha":16`:                     `r: "1" is no number`,
		`"r":0,"lora_alpha":16`:                       `r: 0 is no rank`,
		`"r":1,"lora_alpha":16,"use_rslora":"true"`:   `use_rslora: "true" is neither true nor false`,
		`"r":1,"lora_alpha":16,"use_dora":1`:          `use_dora: 1 is neither true nor false`,
		`"r":1,"lora_alpha":16,"fan_in_fan_out":"on"`: `fan_in_fan_out`,
		`"r":1,"lora_alpha":16,"bias":true`:           `bias true`,
	} {
		a, err := adapter.Open(peftFolder(t, settings))
		switch {
		case want == "" && (err != nil || a.Pairs[0].Scale != 16):
			t.Errorf("%s: %v", settings, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", settings, err, want)
		}
	}
}

// TestPEFTWithoutHalf: the tensors without their configuration have no scale, and are not taken for another form that needs none.
func TestPEFTWithoutHalf(t *testing.T) {
	t.Parallel()
	dir := peftFolder(t, `"r":1,"lora_alpha":16`)
	weights := filepath.Join(dir, "adapter_model.safetensors")
	if _, err := adapter.Open(weights); err != nil {
		t.Errorf("beside its configuration: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "adapter_config.json"), filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	if _, err := adapter.Open(weights); err == nil || !strings.Contains(err.Error(), "without their adapter_config.json") {
		t.Errorf("tensors alone: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, "adapter_config.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(weights); err != nil {
		t.Fatal(err)
	}
	if _, err := adapter.Open(dir); err == nil || !strings.Contains(err.Error(), "no adapter_model.safetensors") {
		t.Errorf("a configuration alone: %v", err)
	}
}
