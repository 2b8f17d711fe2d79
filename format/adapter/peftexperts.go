package adapter

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
)

// Experts in a PEFT folder. The file has a pair for each expert's matrix, by the names of
// checkpoints, as PEFT writes it beside transformers 4. transformers 5 keeps the matrices of all
// experts in two parameters, gate and up in one, which PEFT calls target_parameters; it
// puts such pairs together when it loads them, if the configuration says what follows:
// all experts have one rank and one scale, r and lora_alpha; gate and up together have
// twice of both; there is no dropout; and another module whose name ends like an expert's
// is a parameter, too.

// ofExpert matches the module of an expert's matrix.
var ofExpert = regexp.MustCompile(`\.(experts\.\d+\.(\w+))$`)

// fused are the parameters of transformers 5, by the last part of experts' names.
var fused = map[string]string{
	"w1": gateUp, "w2": down, "w3": gateUp,
	"gate_proj": gateUp, "down_proj": down, "up_proj": gateUp,
}

const (
	gateUp = "gate_up_proj"
	down   = "down_proj"

	// bothPattern is what PEFT itself writes into rank_pattern for gate and up.
	bothPattern = `.*\.` + gateUp
)

// evened gives pairs of which those of experts have one rank and one scale: the largest
// rank, filled up with zeros, and the most frequent scale, to which B is multiplied. They
// are pairs themselves where that is so.
func evened(pairs []*Pair) []*Pair {
	rank := 0
	var scales []float32
	even := true
	for _, p := range pairs {
		if ofExpert.MatchString(p.Module) {
			even = even && (rank == 0 || p.Rank == rank && p.Scale == scales[0])
			rank = max(rank, p.Rank)
			scales = append(scales, p.Scale)
		}
	}
	scale := common(scales)
	if even || scale == 0 {
		return pairs
	}
	all := slices.Clone(pairs)
	for i, p := range pairs {
		if !ofExpert.MatchString(p.Module) {
			continue
		}
		a := Matrix{Rows: rank, Cols: p.A.Cols, Data: make([]float32, rank*p.A.Cols)}
		copy(a.Data, p.A.Data)
		b := Matrix{Rows: p.B.Rows, Cols: p.B.Cols, Data: slices.Clone(p.B.Data)}
		if p.Scale != scale {
			for j := range b.Data {
				b.Data[j] *= p.Scale / scale
			}
		}
		b = b.widened(rank)
		all[i] = p.Clone()
		all[i].SetFactors(a, b, scale)
	}
	return all
}

// ofExperts are those of pairs that change experts.
func ofExperts(pairs []*Pair) (list []*Pair) {
	for _, p := range pairs {
		if ofExpert.MatchString(p.Module) {
			list = append(list, p)
		}
	}
	return list
}

// targetExperts puts into a configuration what an adapter of experts, with evened pairs,
// needs.
func (a *Adapter) targetExperts(c map[string]any, pairs []*Pair, rankPattern map[string]int, alphaPattern map[string]float64) {
	modules, parameters := map[string]bool{}, map[string]bool{}
	var rest []*Pair
	for _, p := range pairs {
		last := p.Module[strings.LastIndexByte(p.Module, '.')+1:]
		switch m := ofExpert.FindStringSubmatch(p.Module); {
		case m != nil:
			modules[m[1]] = true
			if fused[last] == "" {
				continue
			}
			parameters["experts."+fused[last]] = true
			if fused[last] == gateUp {
				rankPattern[bothPattern], alphaPattern[bothPattern] = 2*p.Rank, 2*p.Alpha()
			}
		case fused[last] != "":
			parameters[p.Module+".weight"] = true
		default:
			rest = append(rest, p)
		}
	}
	for _, m := range a.targetModules(rest) {
		modules[m] = true
	}
	c["target_modules"], c["target_parameters"] = slices.Sorted(maps.Keys(modules)), slices.Sorted(maps.Keys(parameters))
	c["lora_dropout"] = 0
}

// apart gives the pairs of single experts that a pair is which PEFT made of one of the
// parameters of transformers 5. The rows of A are experts by r; the columns of B are r by
// experts. Of two parameters of a module the first, gate and up, has its
// pair in "base_layer". ok is false for any other pair.
func (c *peftConfig) apart(p *Pair) (list []*Pair, ok bool, err error) {
	base, inner := strings.CutSuffix(p.Module, ".base_layer")
	if !strings.HasSuffix(base, ".experts") {
		return nil, false, nil
	}
	parameter, both := down, c.targets(gateUp) && c.targets(down)
	if inner || !both && c.targets(gateUp) {
		parameter = gateUp
	}
	r, alpha, scale := c.scale(base + "." + parameter)
	if r < 1 || p.A.Rows%r != 0 || parameter == gateUp && p.B.Rows%2 != 0 {
		return nil, true, &format.CorruptError{Path: c.path, Offset: -1, Field: "module " + p.Module,
			Err: fmt.Errorf("%s has rank %d by the configuration, %d x %d in the file", parameter, r, p.B.Rows, p.A.Rows)}
	}
	if p.Magnitude != nil {
		return nil, true, format.Unsupported("%s: DoRA of the parameter %s.%s", c.path, base, parameter)
	}
	names := []string{"down_proj"}
	if parameter == gateUp {
		names = []string{"gate_proj", "up_proj"}
	}
	n, out := p.A.Rows/r, p.B.Rows/len(names)
	for e := range n {
		for i, name := range names {
			q := &Pair{Module: fmt.Sprintf("%s.%d.%s", base, e, name), Expert: -1, Rank: r, alpha: alpha, Scale: float32(scale),
				A: Matrix{Rows: r, Cols: p.A.Cols, Data: slices.Clone(p.A.Data[e*r*p.A.Cols : (e+1)*r*p.A.Cols])},
				B: Matrix{Rows: out, Cols: r, Data: make([]float32, out*r)}}
			for o := range out {
				for j := range r {
					q.B.Row(o)[j] = p.B.Row(i*out + o)[j*n+e]
				}
			}
			list = append(list, q)
		}
	}
	return list, true, nil
}

// targets says whether a parameter of experts is among target_parameters.
func (c *peftConfig) targets(parameter string) bool {
	list, _ := c.values["target_parameters"].([]any)
	for _, x := range list {
		if s, _ := x.(string); s == parameter || strings.HasSuffix(s, "."+parameter) {
			return true
		}
	}
	return false
}

// newerExpert matches the names that [peftConfig.apart] gives, olderExpert are those of
// Mixtral's checkpoints.
var newerExpert = regexp.MustCompile(`\.mlp\.experts\.(\d+)\.(gate|up|down)_proj$`)

func olderExpert(module string) string {
	m := newerExpert.FindStringSubmatchIndex(module)
	if m == nil {
		return module
	}
	part := map[string]string{"gate": "w1", "down": "w2", "up": "w3"}[module[m[4]:m[5]]]
	return module[:m[0]] + ".block_sparse_moe.experts." + module[m[2]:m[3]] + "." + part
}
