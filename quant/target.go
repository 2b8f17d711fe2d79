package quant

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// Target is the size that a file shall have at most; one of its two numbers.
type Target struct {
	Bytes         int64   // of the whole file, header included
	BitsPerWeight float64 // of all tensors, those that are not quantized included
	// Types are those to choose from; nil means [TargetTypes] of the target.
	Types []format.Type
	// Sensitivity says, by [TargetKind], how much the model loses for each part of
	// noise; nil means factors that fit models in general. A kind that it lacks counts
	// as the most sensitive of those it has.
	Sensitivity map[string]float64
	// Progress, if not nil, is told how many tensors have been measured.
	Progress func(done, total int)
}

// Candidate is a type that a tensor could have.
type Candidate struct {
	Type  format.Type `json:"-"`
	Name  string      `json:"type"`
	Bytes int64       `json:"bytes"`
	// Error is the part of the tensor's output that becomes noise, and Cost what the
	// file loses by it: Error times a factor of the kind of tensor.
	Error float64 `json:"error"`
	Cost  float64 `json:"cost"`
}

// TargetChoice is what was chosen for a tensor.
type TargetChoice struct {
	Tensor  string      `json:"tensor"`
	Chosen  Candidate   `json:"chosen"`
	Options []Candidate `json:"options"` // all that were measured, ascending by size
}

// targetTypes are those that a target chooses from, ascending by size.
var targetTypes = []format.Type{
	format.IQ1_S, format.IQ1_M, format.IQ2_XXS, format.IQ2_XS, format.IQ2_S, format.Q2_K, format.IQ3_XXS, format.IQ3_S, format.Q3_K,
	format.IQ4_XS, format.IQ4_NL, format.Q4_0, format.Q4_K, format.Q4_1, format.Q5_0, format.Q5_K, format.Q5_1, format.Q6_K, format.Q8_0, format.F16,
}

// bitsPerWeight of a type.
func bitsPerWeight(t format.Type) float64 {
	return 8 * float64(t.BlockBytes()) / float64(t.BlockSize())
}

// TargetTypes lists the types that are tried for a mean of bits per weight: those
// from half of it to a little more than twice it.
func TargetTypes(bits float64) []format.Type {
	var list []format.Type
	for _, t := range targetTypes {
		if b := bitsPerWeight(t); b >= 0.55*bits && b <= max(2.1*bits, 8.5) {
			list = append(list, t)
		}
	}
	return list
}

// sensitivities say how far the predictions move for the same part of noise in
// tensors of different kinds, that of a query projection being 1. They are means of
// what two models showed whose tensors of one kind at a time were put to 3 or 4 bits
// (sprig of 4 layers, SmolLM2 of 30; KL divergence divided by the sum of the noise):
// keys 1.7 and 1.9, values 0.7 and 1.9, attention output 0.5 and 1.1, gate 0.2 and
// 2.4, up 0.2 and 3.0, down 0.8 and 3.0. Models differ by more than kinds do, so
// Target.Sensitivity, measured on the model itself, is better.
var sensitivities = map[category]float64{
	attnQ: 1, attnK: 1.8, attnV: 1.2, attnOutput: 0.8, ffnGate: 0.7, ffnUp: 0.8, ffnDown: 1.5, other: 1,
}

// Noise in a layer is diluted by the other layers, noise at the model's two ends is
// not: their factors are for each layer of the model. A tied embedding cost 5.5 of
// the layer's factor in sprig and 4.8 in SmolLM2, the two apart 4 and 1.4 in sprig.
const (
	tiedSensitivity   = 5.0
	embedSensitivity  = 3.0
	outputSensitivity = 1.5
)

// sensitivity is the factor of a tensor in a model of so many layers.
func sensitivity(cat category, tied bool, layers int) float64 {
	l := float64(max(layers, 1))
	switch {
	case cat == tokenEmbedding && tied:
		return tiedSensitivity * l
	case cat == tokenEmbedding:
		return embedSensitivity * l
	case cat == outputHead:
		return outputSensitivity * l
	}
	return sensitivities[cat]
}

// PlanTarget chooses the type of every tensor so that the file is no larger than the
// target and the sum of the costs is as small as it gets by upgrading, from the
// smallest types on, what gains most for its bytes. opt.Recipe's own rules are not
// asked, but the tensors that it keeps are kept, and types that its options fix are
// fixed. It returns the options for [NewPlan] that make the file, whose
// general.file_type becomes the one whose default most of the file has.
//
// Unlike [NewPlan] it reads the tensors, some rows of each.
func PlanTarget(ctx context.Context, src Source, opt Options, target Target) (Options, []TargetChoice, error) {
	if (target.Bytes > 0) == (target.BitsPerWeight > 0) {
		return opt, nil, format.Usagef("a target is a size or a number of bits per weight, one of them")
	}
	base := opt
	base.DryRun = true
	base.Copy = false
	base.Recipe.FileType = Q8_0 // any that quantizes
	plan, meta, err := NewPlan(src, base)
	if err != nil {
		return opt, nil, err
	}
	t := &targeter{src: src, opt: opt, plan: plan}
	if err := t.budget(meta, target); err != nil {
		return opt, nil, err
	}
	types := target.Types
	if types == nil {
		types = TargetTypes(t.bits)
	}
	if err := t.measure(ctx, types, target); err != nil {
		return opt, nil, err
	}
	if err := t.choose(); err != nil {
		return opt, nil, err
	}
	return t.result(), t.choices, nil
}

// targeter is the state of one PlanTarget.
type targeter struct {
	src     Source
	opt     Options
	plan    *format.Plan
	left    int64 // bytes for the tensors to be chosen
	bits    float64
	choices []TargetChoice
}

// free says whether the type of an output is to be chosen.
func (t *targeter) free(o *format.Output) bool {
	switch cat := categoryOf(o.Name); {
	case cat == outputHead && t.opt.Recipe.OutputType != nil, cat == tokenEmbedding && t.opt.Recipe.TokenEmbeddingType != nil:
		return false
	}
	arch, _ := t.src.Meta.Str("general.architecture")
	return t.opt.Recipe.kept(arch, TensorDesc{o.Name, o.Type, o.Shape}) == "" && !t.matched(o.Name)
}

// matched says whether a --tensor-type fixes the type of a tensor.
func (t *targeter) matched(name string) bool {
	for _, p := range t.opt.Recipe.TensorTypes {
		if ok, err := p.re.MatchString(name); err == nil && ok {
			return true
		}
	}
	return false
}

// budget says how many bytes there are for the tensors to be chosen.
func (t *targeter) budget(meta *gguf.Meta, target Target) error {
	var elements, free, freeBytes int64
	for _, o := range t.plan.Outputs {
		n, err := format.Elements(o.Shape)
		if err != nil {
			return err
		}
		elements += n
		if t.free(o) {
			free += n
			freeBytes += o.Size()
		}
	}
	total := target.Bytes
	if target.Bytes > 0 {
		l, err := gguf.LayoutOf("target.gguf", meta, t.plan, gguf.WriteOptions{})
		if err != nil {
			return err
		}
		t.left = total - (l.Size() - freeBytes)
	} else {
		total = int64(target.BitsPerWeight * float64(elements) / 8)
		t.left = total - (t.plan.Size() - freeBytes)
	}
	if free == 0 {
		return format.Usagef("there is no tensor whose type could be chosen")
	}
	if t.left <= 0 {
		return format.Usagef("%d bytes are fewer than what is not quantized has", total)
	}
	t.bits = 8 * float64(t.left) / float64(free)
	return nil
}

// measure fills in the candidates of every tensor to be chosen.
func (t *targeter) measure(ctx context.Context, types []format.Type, target Target) error {
	views := map[string]*format.View{}
	list, _, err := prune(t.src, t.opt.PruneLayers)
	if err != nil {
		return err
	}
	for _, p := range list {
		views[p.name] = p.view
	}
	layers := 0
	for name := range views {
		layers = max(layers, layerOf(name)+1)
	}
	tied := !slices.ContainsFunc(t.plan.Outputs, func(o *format.Output) bool { return o.Name == "output.weight" })
	for i, o := range t.plan.Outputs {
		if target.Progress != nil {
			target.Progress(i, len(t.plan.Outputs))
		}
		if !t.free(o) {
			continue
		}
		v := views[o.Name]
		if v.Type.Quantized() && !t.opt.AllowRequantize {
			return format.Usagef("tensor %s is %v already; allow requantizing if there is no float file", v.Name, v.Type)
		}
		weights, err := t.opt.weightsOf(v)
		if err != nil {
			return err
		}
		factor := sensitivity(categoryOf(o.Name), tied, layers)
		if len(target.Sensitivity) > 0 {
			var ok bool
			if factor, ok = target.Sensitivity[kindOf(o.Name)]; !ok {
				factor = slices.Max(slices.Collect(maps.Values(target.Sensitivity)))
			}
		}
		usable := usableTypes(o, types, weights != nil)
		if len(usable) == 0 {
			return format.Usagef("tensor %s: none of the types to choose from fits its rows of %d", o.Name, o.Shape[len(o.Shape)-1])
		}
		errs, err := relativeErrors(ctx, v, usable, weights)
		if err != nil {
			return err
		}
		c := TargetChoice{Tensor: o.Name}
		for k, typ := range usable {
			size, err := sizeAs(o, typ)
			if err != nil {
				return err
			}
			c.Options = append(c.Options, Candidate{typ, typ.String(), size, errs[k], errs[k] * factor})
		}
		slices.SortStableFunc(c.Options, func(a, b Candidate) int { return cmp.Compare(a.Bytes, b.Bytes) })
		t.choices = append(t.choices, c)
	}
	return nil
}

func sizeAs(o *format.Output, typ format.Type) (int64, error) {
	n, err := format.Elements(o.Shape)
	if err != nil {
		return 0, err
	}
	return typ.RowBytes(n)
}

// usableTypes are those of types whose blocks divide the rows of o and that can be
// encoded without importance, if there is none.
func usableTypes(o *format.Output, types []format.Type, weighted bool) []format.Type {
	cols := o.Shape[len(o.Shape)-1]
	var list []format.Type
	for _, typ := range types {
		switch typ {
		case format.Q4_0, format.Q4_1, format.Q5_0, format.Q5_1, format.IQ4_NL:
			// Stand-ins for rows that are no whole super-blocks.
			if cols%256 == 0 && slices.Contains(types, format.Q4_K) {
				continue
			}
		case format.IQ1_S, format.IQ1_M, format.IQ2_XXS, format.IQ2_XS, format.IQ2_S, format.IQ3_XXS:
			if !weighted {
				continue
			}
		}
		if cols%int64(typ.BlockSize()) == 0 {
			list = append(list, typ)
		}
	}
	return list
}

// choose upgrades tensors, the best gain for a byte first. Only types on the lower
// convex hull of size and cost are steps: the others lose to a mixture of two.
func (t *targeter) choose() error {
	hulls := make([][]Candidate, len(t.choices))
	at := make([]int, len(t.choices))
	left := t.left
	for i, c := range t.choices {
		hulls[i] = hull(c.Options)
		left -= padded(hulls[i][0].Bytes)
	}
	if left < 0 {
		return format.Usagef("the target is %d bytes less than the smallest types to choose from give", -left)
	}
	for {
		best, gain := -1, 0.0
		for i, h := range hulls {
			if at[i]+1 == len(h) {
				continue
			}
			a, b := h[at[i]], h[at[i]+1]
			more := padded(b.Bytes) - padded(a.Bytes)
			if more > left {
				continue
			}
			if g := (a.Cost - b.Cost) / float64(more); g > gain {
				best, gain = i, g
			}
		}
		if best < 0 {
			break
		}
		h := hulls[best]
		left -= padded(h[at[best]+1].Bytes) - padded(h[at[best]].Bytes)
		at[best]++
	}
	for i := range t.choices {
		t.choices[i].Chosen = hulls[i][at[i]]
	}
	return nil
}

// padded is the size of a tensor in a file.
func padded(n int64) int64 { return (n + 31) / 32 * 32 }

// hull gives the lower convex hull of candidates that ascend by size.
func hull(c []Candidate) []Candidate {
	var h []Candidate
	for _, p := range c {
		if len(h) > 0 && p.Cost >= h[len(h)-1].Cost {
			continue
		}
		if len(h) > 0 && p.Bytes == h[len(h)-1].Bytes {
			h = h[:len(h)-1]
		}
		for len(h) > 1 {
			a, b := h[len(h)-2], h[len(h)-1]
			if (a.Cost-b.Cost)*float64(p.Bytes-b.Bytes) > (b.Cost-p.Cost)*float64(b.Bytes-a.Bytes) {
				break
			}
			h = h[:len(h)-1]
		}
		h = append(h, p)
	}
	return h
}

// result makes the choices options: a pattern for each tensor, after those given.
func (t *targeter) result() Options {
	opt := t.opt
	opt.Copy, opt.Recipe.Pure = false, true
	opt.Recipe.TensorTypes = slices.Clone(t.opt.Recipe.TensorTypes)
	sizes := map[format.Type]int64{}
	for _, c := range t.choices {
		p := TensorType{Pattern: "^" + regexp.QuoteMeta(c.Tensor) + "$", Type: c.Chosen.Type}
		if err := p.compile(); err != nil {
			panic(fmt.Sprintf("quant: %v", err)) // a quoted name is a pattern
		}
		opt.Recipe.TensorTypes = append(opt.Recipe.TensorTypes, p)
		sizes[c.Chosen.Type] += c.Chosen.Bytes
	}
	opt.Recipe.FileType = MostOf(sizes)
	return opt
}
