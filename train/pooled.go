package train

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/optim"
)

// PooledKey is the metadata of an adapter trained with AdapterConfig.QALoRA: the sizes of
// the groups over which its A's are constant.
const PooledKey = "graft.qa_lora.group"

// minimums gives the sub-block of a base's matrix whose type has a minimum for each of
// them; ok is false where it has none.
func (b *Base) minimums(matrix string) (sub int, typ format.Type, ok bool) {
	v := b.Source.View(matrix)
	if v == nil {
		return 0, typ, false
	}
	g, ok := quant.GridOf(v.Type)
	if !ok || !g.HasMin {
		return 0, v.Type, false
	}
	return g.Sub, v.Type, true
}

// poolTargets leaves out of the targets what [AdapterConfig].QALoRA cannot change, and says so.
func (b *Base) poolTargets(c AdapterConfig) (AdapterConfig, string, error) {
	chosen, err := chooseTargets(b.Model.Matrices(), c.Targets, c.Exclude)
	if err != nil {
		return c, "", err
	}
	var left []string
	var first format.Type
	for _, name := range chosen {
		if _, typ, ok := b.minimums(name); !ok {
			if left = append(left, name); len(left) == 1 {
				first = typ
			}
		}
	}
	if len(left) == len(chosen) {
		return c, "", format.Unsupported("qa_lora on this base: the targets are %v, a type without minimums; it wants Q4_1, Q5_1, Q2_K, Q4_K or Q5_K", first)
	}
	if len(left) == 0 {
		return c, "", nil
	}
	c.Exclude = append(slices.Clone(c.Exclude), left...)
	return c, fmt.Sprintf("qa_lora: %d of %d matrices have no minimums to merge into and are not trained (%s is %v)", len(left), len(chosen), left[0], first), nil
}

// pool makes every A constant over the sub-blocks of its matrix's type, as QA-LoRA
// (arXiv 2309.14717) has it: B·A·x then is B·A'·(sums of x over the groups), and the change of
// a matrix is one number for each row and sub-block, which its minimum can take. Stored
// as it is used, with its columns repeated, such an adapter is an ordinary LoRA to every tool.
func (l *lora) pool(b *Base, from string) error {
	l.groups = make([]int, len(l.names))
	for i, name := range l.names {
		sub, typ, ok := b.minimums(name)
		if !ok {
			return format.Unsupported("qa_lora: %s is %v, which has no minimums: leave it out with --exclude", name, typ)
		}
		l.groups[i] = sub
		a := &l.params[2*i]
		if from != "" && !constant(a.Value, sub) {
			return format.Usagef("%s is no adapter for qa_lora: its A of %s is not constant over groups of %d", from, name, sub)
		}
		for g := 0; g < len(a.Value); g += sub {
			for j := range a.Value[g : g+sub] {
				a.Value[g+j] = a.Value[g]
			}
		}
	}
	l.sync()
	return nil
}

func constant(x []float32, group int) bool {
	for i, v := range x {
		if v != x[i-i%group] {
			return false
		}
	}
	return true
}

// poolGradients makes the gradients of pooled A's those of their groups: the mean, which
// is the projection on what may change.
func (l *lora) poolGradients() {
	l.eachPooled(func(p *optim.Param, group int) { meanOver(p.Grad, group) })
}

// poolValues keeps pooled A's constant over groups where an optimizer's rounding may not.
func (l *lora) poolValues() {
	l.eachPooled(func(p *optim.Param, group int) {
		if !constant(p.Value, group) {
			meanOver(p.Value, group)
		}
	})
}

func (l *lora) eachPooled(f func(p *optim.Param, group int)) {
	for i, group := range l.groups {
		f(&l.params[2*i], group)
	}
}

// meanOver puts the mean of each group in place of its numbers.
func meanOver(x []float32, group int) {
	for len(x) > 0 {
		sum := 0.0
		for _, v := range x[:group] {
			sum += float64(v)
		}
		mean := float32(sum / float64(group))
		for i := range x[:group] {
			x[i] = mean
		}
		x = x[group:]
	}
}

// pooledSizes are the sizes of the groups, for the metadata; "" for an ordinary adapter.
func (l *lora) pooledSizes() string {
	sizes := slices.Clone(l.groups)
	slices.Sort(sizes)
	var words []string
	for _, s := range slices.Compact(sizes) {
		words = append(words, strconv.Itoa(s))
	}
	return strings.Join(words, ",")
}
