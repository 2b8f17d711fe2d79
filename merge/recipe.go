package merge

import (
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
)

// Recipe is a mergekit recipe: which models are blended, how, and into what.
type Recipe struct {
	Method    string
	Base      string // "" if there is none
	Slices    []RecipeSlice
	Whole     bool // one slice of all layers, written as "models"
	DType     format.Type
	OutDType  format.Type
	HasDType  bool   // dtype is stated: models are rounded to it before anything is computed
	HasOut    bool   // dtype or out_dtype is stated
	Tokenizer string // "", "base", "union", or a model
	Name      string
	Text      []byte // as it was written

	params map[string]setting
}

// RecipeSlice is a run of layers of the result.
type RecipeSlice struct {
	Sources []RecipeSource
	params  map[string]setting
}

// RecipeSource is a model and those of its layers that go into a slice.
type RecipeSource struct {
	Model    string
	From, To int // layers, the end excluded; both 0 in a recipe of whole models
	params   map[string]setting
}

// setting is the value of a parameter: a number, a truth, a gradient over the
// layers, or one of these for each of several filters.
type setting struct {
	value    float64
	gradient []float64
	filters  []filtered
}

type filtered struct {
	filter string // part of a tensor's Hugging Face name; "" or "*" matches all
	setting
}

// at evaluates a setting for a tensor; t is the place of its layer in the slice,
// 0 to 1. ok is false if no filter matches.
func (s setting) at(tensor string, t float64) (v float64, ok bool) {
	switch {
	case s.filters != nil:
		for _, f := range s.filters {
			if f.filter == "" || f.filter == "*" || strings.Contains(tensor, f.filter) {
				return f.at(tensor, t)
			}
		}
		return 0, false
	case s.gradient != nil:
		x := float64(t * float64(len(s.gradient)-1))
		i := int(x)
		j := min(i+1, len(s.gradient)-1)
		x -= float64(i)
		return float64((1-x)*s.gradient[i]) + float64(x*s.gradient[j]), true
	}
	return s.value, true
}

// Models lists the paths that the recipe names, each once, base first.
func (r *Recipe) Models() []string {
	var out []string
	add := func(path string) {
		if path != "" && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	add(r.Base)
	for _, s := range r.Slices {
		for _, m := range s.Sources {
			add(m.Model)
		}
	}
	return out
}

// ReadRecipe reads a mergekit recipe. Keys that mergekit does not have are usage
// errors that name the line and the nearest key.
func ReadRecipe(path string) (*Recipe, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := ParseRecipe(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// ParseRecipe reads a recipe's text.
func ParseRecipe(b []byte) (*Recipe, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, format.Usagef("%v", err)
	}
	if len(doc.Content) == 0 {
		return nil, format.Usagef("the recipe is empty")
	}
	r := &Recipe{Text: b}
	var models *yaml.Node
	err := eachKey(doc.Content[0], "the recipe", recipeKeys, func(key string, v *yaml.Node) (err error) {
		switch key {
		case "merge_method":
			r.Method, err = text(v)
		case "base_model":
			r.Base, err = modelRef(v)
		case "models":
			models = v
		case "slices":
			err = eachItem(v, func(n *yaml.Node) error { return r.slice(n) })
		case "parameters":
			r.params, err = settings(v)
		case "dtype":
			r.DType, err = dtype(v)
			r.HasDType = err == nil
		case "out_dtype":
			r.OutDType, err = dtype(v)
			r.HasOut = err == nil
		case "tokenizer_source":
			r.Tokenizer, err = tokenizerRef(v)
		case "tokenizer":
			err = eachKey(v, "tokenizer", []string{"source", "pad_to_multiple_of", "tokens"}, func(key string, v *yaml.Node) (err error) {
				if key != "source" {
					return format.Unsupported("line %d: tokenizer: %s", v.Line, key)
				}
				r.Tokenizer, err = tokenizerRef(v)
				return err
			})
		case "name":
			r.Name, err = text(v)
		case "modules", "chat_template":
			err = format.Unsupported("line %d: %s", v.Line, key)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if models != nil {
		if r.Slices != nil {
			return nil, format.Usagef("line %d: a recipe has models or slices, not both", models.Line)
		}
		var s RecipeSlice
		if err := eachItem(models, func(n *yaml.Node) error { return s.source(n, false) }); err != nil {
			return nil, err
		}
		r.Slices, r.Whole = []RecipeSlice{s}, true
	}
	if r.HasDType && !r.HasOut {
		r.OutDType, r.HasOut = r.DType, true
	}
	return r, r.check()
}

var recipeKeys = []string{"merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
	"tokenizer_source", "tokenizer", "chat_template", "name"}

func (r *Recipe) check() error {
	if r.Method == "" {
		return format.Usagef("the recipe names no merge_method")
	}
	if _, err := blendByName(r.Method); err != nil {
		return err
	}
	if len(r.Slices) == 0 || len(r.Slices[0].Sources) == 0 {
		return format.Usagef("the recipe names no models")
	}
	return nil
}

func (r *Recipe) slice(n *yaml.Node) error {
	var s RecipeSlice
	err := eachKey(n, "a slice", []string{"sources", "parameters"}, func(key string, v *yaml.Node) (err error) {
		if key == "parameters" {
			s.params, err = settings(v)
			return err
		}
		return eachItem(v, func(n *yaml.Node) error { return s.source(n, true) })
	})
	if err != nil {
		return err
	}
	if len(s.Sources) == 0 {
		return format.Usagef("line %d: a slice without sources", n.Line)
	}
	for _, m := range s.Sources[1:] {
		if m.To-m.From != s.Sources[0].To-s.Sources[0].From {
			return format.Usagef("line %d: the sources of a slice have different numbers of layers", n.Line)
		}
	}
	r.Slices = append(r.Slices, s)
	return nil
}

func (s *RecipeSlice) source(n *yaml.Node, layers bool) error {
	var m RecipeSource
	keys := []string{"model", "parameters"}
	if layers {
		keys = append(keys, "layer_range")
	}
	err := eachKey(n, "a model", keys, func(key string, v *yaml.Node) (err error) {
		switch key {
		case "model":
			m.Model, err = modelRef(v)
		case "parameters":
			m.params, err = settings(v)
		case "layer_range":
			var r []int
			if err := v.Decode(&r); err != nil || len(r) != 2 || r[0] < 0 || r[1] <= r[0] {
				return format.Usagef("line %d: a layer_range is [first, end], the end excluded", v.Line)
			}
			m.From, m.To = r[0], r[1]
		}
		return err
	})
	if err != nil {
		return err
	}
	if m.Model == "" || layers && m.To == 0 {
		return format.Usagef("line %d: a source needs a model and, in slices, a layer_range", n.Line)
	}
	s.Sources = append(s.Sources, m)
	return nil
}

// eachKey calls f for the keys of a mapping, in order. A key that is not known is an
// error that says which one was meant.
func eachKey(n *yaml.Node, what string, known []string, f func(key string, v *yaml.Node) error) error {
	n = behind(n)
	if n.Kind != yaml.MappingNode {
		return format.Usagef("line %d: %s should be a mapping", n.Line, what)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i].Value, behind(n.Content[i+1])
		if !slices.Contains(known, k) {
			return format.Usagef("line %d: %s has no key %q; did you mean %q?", n.Content[i].Line, what, k, nearest(k, known))
		}
		if v.Tag == "!!null" {
			continue
		}
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

// behind is the node that an alias stands for.
func behind(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func eachItem(n *yaml.Node, f func(*yaml.Node) error) error {
	n = behind(n)
	if n.Kind != yaml.SequenceNode {
		return format.Usagef("line %d: there should be a list", n.Line)
	}
	for _, c := range n.Content {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func text(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", format.Usagef("line %d: there should be one word", n.Line)
	}
	return n.Value, nil
}

// modelRef reads a model: a path, or a mapping with one.
func modelRef(n *yaml.Node) (path string, err error) {
	if n.Kind == yaml.ScalarNode {
		return n.Value, nil
	}
	lora := ""
	err = eachKey(n, "a model", []string{"model", "path", "lora"}, func(key string, v *yaml.Node) (err error) {
		if key == "lora" {
			lora, err = modelRef(v)
			lora = "+" + lora
			return err
		}
		path, err = modelRef(v)
		return err
	})
	return path + lora, err
}

func tokenizerRef(n *yaml.Node) (string, error) {
	s, err := modelRef(n)
	return strings.TrimPrefix(s, "model:"), err
}

func dtype(n *yaml.Node) (format.Type, error) {
	switch n.Value {
	case "float32":
		return format.F32, nil
	case "float16":
		return format.F16, nil
	case "bfloat16":
		return format.BF16, nil
	}
	return 0, format.Usagef("line %d: the type is float32, float16 or bfloat16, not %q", n.Line, n.Value)
}

func settings(n *yaml.Node) (map[string]setting, error) {
	out := map[string]setting{}
	err := eachKey(n, "parameters", blendParameters(), func(key string, v *yaml.Node) (err error) {
		out[key], err = parseSetting(v)
		return err
	})
	return out, err
}

func parseSetting(n *yaml.Node) (s setting, err error) {
	bad := func() (setting, error) {
		return setting{}, format.Usagef("line %d: a parameter is a number, true or false, a list of numbers, or a list of filters with values", n.Line)
	}
	if n.Kind == yaml.ScalarNode {
		var truth bool
		if n.Tag == "!!bool" && n.Decode(&truth) == nil {
			if truth {
				s.value = 1
			}
			return s, nil
		}
		if n.Decode(&s.value) != nil || s.value-s.value != 0 {
			return bad()
		}
		return s, nil
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return bad()
	}
	for _, c := range n.Content {
		c = behind(c)
		if c.Kind == yaml.MappingNode {
			var f filtered
			err := eachKey(c, "a filter", []string{"filter", "value"}, func(key string, v *yaml.Node) (err error) {
				if key == "filter" {
					f.filter, err = text(v)
				} else {
					f.setting, err = parseSetting(v)
				}
				return err
			})
			if err != nil {
				return setting{}, err
			}
			s.filters = append(s.filters, f)
			continue
		}
		var x float64
		if c.Decode(&x) != nil || x-x != 0 {
			return bad()
		}
		s.gradient = append(s.gradient, x)
	}
	if s.filters != nil && s.gradient != nil {
		return bad()
	}
	return s, nil
}

// nearest is the known word with the fewest letters to change, or one that continues
// the word.
func nearest(word string, known []string) string {
	best, least := "", 1<<30
	sorted := slices.Clone(known)
	sort.Strings(sorted)
	for _, k := range sorted {
		d := editDistance(word, k)
		if word != "" && strings.HasPrefix(k, word) {
			d = min(d, 1)
		}
		if d < least {
			best, least = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
