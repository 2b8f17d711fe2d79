package adapter

import (
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
)

// kohyaPrefixes stand before the flattened name of a module.
var kohyaPrefixes = []string{"lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_unet_", "lora_transformer_", "lycoris_"}

// sniffKohya knows adapters in one safetensors file: of kohya's scripts, LyCORIS,
// diffusers and ComfyUI.
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
		if _, part := splitPart(t.Name); part != "" && part != "alpha" {
			return true
		}
		for _, n := range ofNoUse {
			if strings.HasSuffix(t.Name, n.ending) && strings.HasPrefix(t.Name, "l") {
				return true // an adapter, and refused by name
			}
		}
	}
	return false
}

// openKohya reads an adapter in one file: LoRA, LoCon, LoHa, LoKr, GLoRA, full
// differences and norms. Its names may have underscores for dots, so that only the base
// can tell them apart: Module holds the name as the file has it until the adapter is
// resolved.
func openKohya(path string) (*Adapter, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Path: path, Format: "kohya", Name: folderName(path), Meta: otherMetadata(f)}
	modules, of, err := readParts(path, f.Tensors)
	if err != nil {
		return nil, err
	}
	for _, t := range f.Tensors {
		if len(t.Shape) > 0 {
			a.Type = t.Type
			break
		}
	}
	dotted := 0
	for _, module := range modules {
		// Of diffusion models such names are without alpha, of a scale of 1; of language models they are PEFT's own.
		if strings.HasPrefix(module, peftPrefix+"model.") && of[module]["alpha"] == nil {
			return nil, format.Unsupported("%s: the tensors of a PEFT adapter (%s) without their %s, which says by how much they count: put it beside the file", path, module, checkpoint.AdapterConfigName)
		}
		pairs, err := of[module].pairs(module)
		if err != nil {
			return nil, err
		}
		if strings.Contains(module, ".") {
			dotted++
		}
		a.Pairs = append(a.Pairs, pairs...)
	}
	if 2*dotted > len(modules) {
		a.Format = "diffusers"
	}
	return a, nil
}

// plainName is a module's name without what says whose it is.
func plainName(module string) string {
	for _, p := range kohyaPrefixes {
		if s, ok := strings.CutPrefix(module, p); ok {
			return s
		}
	}
	return module
}

// Changes says in one word what a pair does to what: weights, a vector or a convolution.
func (p *Pair) Changes() string {
	switch {
	case p.Vector:
		return "vector"
	case len(p.Kernel) > 0 && size(p.Kernel) > 1:
		return "convolution"
	}
	return "matrix"
}

// Full is the change as it is, without Scale, where the source stores it whole; ok is
// false for a pair of factors. The data is the pair's.
func (p *Pair) Full() (m Matrix, ok bool) { return p.full, p.full.Data != nil }

// onlyLoRA refuses what a format of pairs of matrices cannot hold.
func onlyLoRA(p *Pair, what string) error {
	switch {
	case p.Vector:
		return format.Unsupported("%s cannot hold the change of the vector %s: merge the adapter into its base instead", what, name(p))
	case p.Columns && !p.embedding:
		return format.Unsupported("%s cannot hold DoRA over columns (%s): merge the adapter into its base instead", what, name(p))
	case p.Changes() == "convolution":
		return format.Unsupported("%s cannot hold the change of a convolution (%s): write a .safetensors file, or merge it", what, name(p))
	}
	return p.complete()
}
