package adapter

import (
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
)

// lycorisTypes are PEFT's types of adapters that are pairs of LyCORIS' parts.
var lycorisTypes = []string{"LOHA", "LOKR"}

// lycoris says whether the configuration is of such a type.
func (c *peftConfig) lycoris() bool {
	t, _ := c.values["peft_type"].(string)
	return slices.Contains(lycorisTypes, t)
}

// alphaKey is what the configuration calls alpha.
func (c *peftConfig) alphaKey() string {
	if c.lycoris() {
		return "alpha"
	}
	return "lora_alpha"
}

// lycorisPairs reads PEFT's LoHa and LoKr: LyCORIS' parts under PEFT's names, with the scale of the configuration, alpha / r
// even where LoKr's sides are full.
func (c *peftConfig) lycorisPairs(path string, tensors []*format.Tensor) ([]*Pair, error) {
	named := make([]*format.Tensor, len(tensors))
	for i, t := range tensors {
		u := *t
		u.Name = strings.TrimPrefix(t.Name, peftPrefix)
		named[i] = &u
	}
	modules, of, err := readParts(path, named)
	if err != nil {
		return nil, err
	}
	var list []*Pair
	for _, module := range modules {
		if p := of[module]; p["hada_w1_a"] == nil && p["lokr_w1"] == nil && p["lokr_w1_a"] == nil {
			return nil, p.problem(module, "the configuration says %v, the file has no part of it", c.values["peft_type"])
		}
		pairs, err := of[module].pairs(module)
		if err != nil {
			return nil, err
		}
		rank, alpha, scale := c.scale(module)
		for _, p := range pairs {
			if p.Scale, p.alpha = float32(scale), 0; rank == p.Rank {
				p.alpha = alpha
			}
			list = append(list, p)
		}
	}
	return list, nil
}
