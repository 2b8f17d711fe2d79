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

const peftPrefix = "base_model.model."

// peftDir gives the folder of a PEFT adapter, which path is or lies in.
func peftDir(path string) string {
	if base := filepath.Base(path); base == checkpoint.AdapterWeightsName || base == checkpoint.AdapterConfigName {
		return filepath.Dir(path)
	}
	return path
}

func sniffPEFT(path string) bool {
	dir := peftDir(path)
	config := filepath.Join(dir, checkpoint.AdapterConfigName)
	if !exists(config) {
		return false
	}
	if exists(filepath.Join(dir, checkpoint.AdapterWeightsName)) || exists(filepath.Join(dir, "adapter_model.bin")) {
		return true
	}
	b, err := os.ReadFile(config)
	var c struct {
		Type string `json:"peft_type"`
	}
	return err == nil && json.Unmarshal(b, &c) == nil && c.Type != "" // without tensors, which openPEFT says
}

func openPEFT(path string) (*Adapter, error) {
	dir := peftDir(path)
	c, err := readPEFTConfig(filepath.Join(dir, checkpoint.AdapterConfigName))
	if err != nil {
		return nil, err
	}
	weights := filepath.Join(dir, checkpoint.AdapterWeightsName)
	if !exists(weights) {
		if !exists(filepath.Join(dir, "adapter_model.bin")) {
			return nil, &format.CorruptError{Path: dir, Offset: -1, Err: fmt.Errorf("there is an %s, and no %s with the tensors", checkpoint.AdapterConfigName, checkpoint.AdapterWeightsName)}
		}
		return nil, format.Unsupported("%s: adapter_model.bin: pickle files are not read; save the adapter as safetensors", dir)
	}
	f, err := safetensors.Open(weights)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Path: path, Format: "peft", Name: folderName(dir), Meta: otherMetadata(f)}
	c.mergeAware(a.Meta)
	a.Base, _ = c.values["base_model_name_or_path"].(string)
	a.Invocation = invocation(c.values["alora_invocation_tokens"])
	if c.lycoris() {
		if len(f.Tensors) > 0 {
			a.Type = f.Tensors[0].Type
		}
		a.Pairs, err = c.lycorisPairs(weights, f.Tensors)
		return a, err
	}
	h, tokens := &halves{path: weights}, &tokenReader{wanted: c.tokens != nil}
	for i, t := range f.Tensors {
		if i == 0 {
			a.Type = t.Type
		}
		if taken, err := tokens.read(strings.TrimPrefix(t.Name, peftPrefix), t); err != nil {
			return nil, err
		} else if taken {
			continue
		}
		if taken, err := readWhole(h, t); err != nil {
			return nil, err
		} else if taken {
			continue
		}
		if err := readPEFT(h, t); err != nil {
			return nil, err
		}
	}
	if err := tokens.finish(a, c, dir); err != nil {
		return nil, err
	}
	if a.Pairs, err = h.finish(); err != nil {
		return nil, err
	}
	a.saved = savedBase{weights, h.saved}
	if err := a.saved.check(h); err != nil {
		return nil, err
	}
	stored := a.Pairs
	a.Pairs = nil
	for _, p := range stored {
		if experts, ok, err := c.apart(p); err != nil {
			return nil, err
		} else if ok {
			a.Pairs = append(a.Pairs, experts...)
			continue
		}
		if err := c.apply(p); err != nil {
			return nil, err
		}
		if p.embedding { // stored as r x vocabulary and hidden x r, of the transpose
			p.A, p.B = p.B.transposed(), p.A.transposed()
			p.Columns = p.Magnitude != nil
		}
		a.Pairs = append(a.Pairs, p)
	}
	a.Pairs = append(a.Pairs, h.whole...)
	return a, nil
}

// apply gives a pair its scale, checked against its matrices.
func (c *peftConfig) apply(p *Pair) error {
	rank, alpha, scale := c.scale(p.Module)
	if rank != p.Rank {
		return &format.CorruptError{Path: c.path, Offset: -1, Field: "module " + p.Module,
			Err: fmt.Errorf("its rank is %d by the configuration, %d in the file", rank, p.Rank)}
	}
	if c.dora != (p.Magnitude != nil) {
		err := errors.New("the file has a magnitude, the configuration says no DoRA")
		if c.dora {
			err = errors.New("the configuration says DoRA, the file has no magnitude")
		}
		return &format.CorruptError{Path: c.path, Offset: -1, Field: "module " + p.Module, Err: err}
	}
	p.alpha, p.Scale = alpha, float32(scale)
	return nil
}

// peftKinds are the parts of a module's adapter, as the keys name them. Between kind
// and ending an adapter's name may stand, as in a raw state dict. set says whether
// the part was there before.
var peftKinds = []struct {
	mark, ending string
	set          func(p *Pair, m Matrix) bool
}{
	{".lora_A", ".weight", setA},
	{".lora_B", ".weight", setB},
	{".lora_embedding_A", "", func(p *Pair, m Matrix) bool { p.embedding = true; return setA(p, m) }},
	{".lora_embedding_B", "", func(p *Pair, m Matrix) bool { p.embedding = true; return setB(p, m) }},
	{".lora_magnitude_vector", "", setMagnitude},
	{".lora_magnitude_vector", ".weight", setMagnitude},
}

func setA(p *Pair, m Matrix) bool {
	had := p.A.Data != nil
	p.A = m
	return had
}

func setB(p *Pair, m Matrix) bool {
	had := p.B.Data != nil
	p.B = m
	return had
}

func setMagnitude(p *Pair, m Matrix) bool {
	had := p.Magnitude != nil
	p.Magnitude = m.Data
	return had
}

func readPEFT(h *halves, t *format.Tensor) error {
	key := strings.TrimPrefix(t.Name, peftPrefix)
	for _, k := range peftKinds {
		i := strings.LastIndex(key, k.mark)
		if i < 0 {
			continue
		}
		rest, ok := strings.CutSuffix(key[i+len(k.mark):], k.ending)
		if !ok || rest != "" && (rest[0] != '.' || strings.Contains(rest[1:], ".") || rest == ".bias" || rest == ".weight") {
			continue
		}
		m, err := readMatrix(t)
		if err != nil {
			return err
		}
		if k.set(h.pair(key[:i]), m) {
			return format.Unsupported("%s: several adapters in one file (%s)", t.Path, t.Name)
		}
		return nil
	}
	if module, ok := strings.CutSuffix(key, ".base_layer.weight"); ok {
		h.saved = append(h.saved, module)
		return nil
	}
	if strings.Contains(key, ".lora_B") && strings.HasSuffix(key, ".bias") {
		return format.Unsupported("%s: tensor %s: a bias trained with the adapter (lora_bias)", t.Path, t.Name)
	}
	return format.Unsupported("%s: tensor %s: not a part of a LoRA pair", t.Path, t.Name)
}

// folderName is the name of a folder or file without its ending.
func folderName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	base := filepath.Base(path)
	for _, s := range []string{".gguf", ".safetensors"} {
		base = strings.TrimSuffix(base, s)
	}
	return base
}

// otherMetadata is the metadata of a file without what every file has.
func otherMetadata(f *safetensors.File) map[string]string {
	out := map[string]string{}
	for k, v := range f.Metadata {
		if k != "format" {
			out[k] = v
		}
	}
	return out
}

func invocation(v any) []uint32 {
	list, _ := v.([]any)
	var out []uint32
	for _, x := range list {
		if f, ok := x.(float64); ok && f >= 0 {
			out = append(out, uint32(f))
		}
	}
	return out
}
