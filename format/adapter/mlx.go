package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
)

const mlxWeightsName = "adapters.safetensors"

// mlxDefaultScale is mlx-lm's.
const mlxDefaultScale = 20

func mlxDir(path string) string {
	if filepath.Base(path) == mlxWeightsName {
		return filepath.Dir(path)
	}
	return path
}

func sniffMLX(path string) bool {
	dir := mlxDir(path)
	return exists(filepath.Join(dir, checkpoint.AdapterConfigName)) && exists(filepath.Join(dir, mlxWeightsName))
}

// openMLX reads an adapter of mlx-lm: matrices transposed, a scale that is used as
// it is.
func openMLX(path string) (*Adapter, error) {
	dir := mlxDir(path)
	configPath := filepath.Join(dir, checkpoint.AdapterConfigName)
	b, err := os.ReadFile(configPath)
	if err != nil {
		return nil, err
	}
	var c struct {
		Kind string `json:"fine_tune_type"`
		LoRA struct {
			Scale *float64 `json:"scale"`
		} `json:"lora_parameters"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, &format.CorruptError{Path: configPath, Offset: -1, Field: "JSON", Err: err}
	}
	if c.Kind != "" && c.Kind != "lora" && c.Kind != "dora" {
		return nil, format.Unsupported("%s: fine_tune_type %q", configPath, c.Kind)
	}
	scale := float64(mlxDefaultScale)
	if c.LoRA.Scale != nil {
		scale = *c.LoRA.Scale
	}
	f, err := safetensors.Open(filepath.Join(dir, mlxWeightsName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Path: path, Format: "mlx", Name: folderName(dir), Meta: otherMetadata(f)}
	h := &halves{path: path}
	for i, t := range f.Tensors {
		if i == 0 {
			a.Type = t.Type
		}
		m, err := readMatrix(t)
		if err != nil {
			return nil, err
		}
		dot := strings.LastIndexByte(t.Name, '.')
		if dot < 0 {
			dot = 0
		}
		module := t.Name[:dot]
		switch t.Name[dot:] {
		case ".lora_a":
			setA(h.pair(module), m.transposed())
		case ".lora_b":
			setB(h.pair(module), m.transposed())
		case ".m":
			setMagnitude(h.pair(module), m)
		default:
			return nil, format.Unsupported("%s: tensor %s: not a part of a LoRA pair", path, t.Name)
		}
	}
	if a.Pairs, err = h.finish(); err != nil {
		return nil, err
	}
	for _, p := range a.Pairs {
		if c.Kind == "dora" && p.Magnitude == nil || c.Kind == "lora" && p.Magnitude != nil {
			return nil, &format.CorruptError{Path: path, Offset: -1, Field: "module " + p.Module,
				Err: fmt.Errorf("fine_tune_type is %q: %w", c.Kind, errors.New("magnitudes do not agree"))}
		}
		p.Scale, p.alpha = float32(scale), scale*float64(p.Rank)
	}
	return a, nil
}
