package adapter

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
)

// kohyaPrefixes stand before the flattened name of a module.
var kohyaPrefixes = []string{"lora_te_", "lora_te1_", "lora_te2_", "lora_unet_"}

func sniffKohya(path string) bool {
	if !exists(path) || !strings.HasSuffix(path, ".safetensors") {
		return false
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, t := range f.Tensors {
		if strings.HasSuffix(t.Name, ".lora_down.weight") {
			return true
		}
	}
	return false
}

// openKohya reads plain LoRA of kohya's scripts: alpha beside each pair, 1 as scale
// without it. Its names have underscores for dots, so that only the base can tell
// them apart: Module holds the flattened name until the adapter is resolved.
func openKohya(path string) (*Adapter, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Path: path, Format: "kohya", Name: folderName(path), Meta: otherMetadata(f)}
	h := &halves{path: path}
	alphas := map[string]float64{}
	for i, t := range f.Tensors {
		if i == 0 {
			a.Type = t.Type
		}
		module, part, _ := strings.Cut(t.Name, ".")
		for _, p := range kohyaPrefixes {
			module = strings.TrimPrefix(module, p)
		}
		m, err := readMatrix(t)
		if err != nil {
			return nil, err
		}
		switch part {
		case "lora_down.weight":
			setA(h.pair(module), m)
			a.Type = t.Type
		case "lora_up.weight":
			setB(h.pair(module), m)
		case "alpha":
			if len(m.Data) != 1 {
				return nil, &format.CorruptError{Path: path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("shape %v is no number", t.Shape)}
			}
			alphas[module] = float64(m.Data[0])
			h.pair(module)
		default:
			return nil, format.Unsupported("%s: tensor %s: only plain LoRA of this kind is read", path, t.Name)
		}
	}
	if a.Pairs, err = h.finish(); err != nil {
		return nil, err
	}
	for _, p := range a.Pairs {
		alpha, ok := alphas[p.Module]
		if !ok {
			alpha = float64(p.Rank)
		}
		p.alpha, p.Scale = alpha, float32(alpha/float64(p.Rank))
	}
	return a, nil
}
