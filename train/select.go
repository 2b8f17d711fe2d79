package train

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/train/model"
)

// chooseMatrices gives the matrices and stacks that c means, in the model's order.
func chooseMatrices(m *model.Model, c *AdapterConfig) ([]string, error) {
	if c.none() {
		return nil, nil
	}
	all := append(m.Matrices(), m.Stacks()...)
	chosen, err := chooseTargets(all, c.Targets, c.Exclude)
	if err != nil || c.Layers == "" {
		return chosen, err
	}
	in, err := parseLayers(c.Layers, len(m.Layers))
	if err != nil {
		return nil, err
	}
	var kept []string
	for _, name := range chosen {
		if i, ok := layerOf(name); !ok || in[i] {
			kept = append(kept, name)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("train: no target is in the layers %s", c.Layers)
	}
	return kept, nil
}

// layerOf is the layer of blk.N.….
func layerOf(matrix string) (int, bool) {
	rest, ok := strings.CutPrefix(matrix, "blk.")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	i, err := strconv.Atoi(number)
	return i, err == nil
}

// parseLayers reads a list of layers and ranges, both ends counted, of n layers.
func parseLayers(list string, n int) ([]bool, error) {
	in := make([]bool, n)
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a > b {
			return nil, fmt.Errorf("train: layers %q: %q is no layer and no range such as 8-23", list, part)
		}
		if a < 0 || b >= n {
			return nil, fmt.Errorf("train: layers %q: the model has the layers 0-%d", list, n-1)
		}
		for i := a; i <= b; i++ {
			in[i] = true
		}
	}
	return in, nil
}

// patterns gives the rank and the alpha of every matrix.
func (a *AdapterConfig) patterns(matrices []string) (ranks map[string]int, alphas map[string]float64, err error) {
	if ranks, err = byPattern("rank_pattern", a.RankPattern, a.Rank, matrices); err != nil {
		return nil, nil, err
	}
	if alphas, err = byPattern("alpha_pattern", a.AlphaPattern, a.Alpha, matrices); err != nil {
		return nil, nil, err
	}
	for name, r := range ranks {
		if r < 1 || !(alphas[name] > 0) {
			return nil, nil, fmt.Errorf("train: %s gets rank %d and alpha %v", name, r, alphas[name])
		}
	}
	return ranks, alphas, nil
}

// byPattern gives every matrix the value of the pattern that means it, or def. A
// pattern that means none, and two with different values for one matrix, are errors.
func byPattern[T comparable](setting string, patterns map[string]T, def T, matrices []string) (map[string]T, error) {
	out := map[string]T{}
	for _, m := range matrices {
		out[m] = def
	}
	by := map[string]string{}
	for _, word := range slices.Sorted(maps.Keys(patterns)) {
		used := false
		for _, m := range matrices {
			ok, err := meansMatrix(word, m)
			if err != nil {
				return nil, fmt.Errorf("train: %s: %w", setting, err)
			}
			if !ok {
				continue
			}
			if other := by[m]; other != "" && out[m] != patterns[word] {
				return nil, fmt.Errorf("train: %s: %q and %q both mean %s", setting, other, word, m)
			}
			used, by[m], out[m] = true, word, patterns[word]
		}
		if !used {
			return nil, fmt.Errorf("train: %s: %q means none of the matrices trained", setting, word)
		}
	}
	return out, nil
}

// meansMatrix is matches, or PEFT's rule: a regular expression that is the whole of
// Hugging Face's name or its end after a dot.
func meansMatrix(word, matrix string) (bool, error) {
	if ok, err := matches(word, matrix); ok && err == nil {
		return true, nil
	}
	re, err := regexp.Compile(`^(?:.*\.)?(?:` + word + `)$`)
	if err != nil {
		return false, nil // a pattern of path.Match that is no regular expression
	}
	for _, n := range names(matrix) {
		if strings.HasPrefix(n, "model.") && re.MatchString(n) {
			return true, nil
		}
	}
	return false, nil
}
