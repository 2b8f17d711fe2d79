package quant

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dlclark/regexp2"

	"github.com/graft-lora/graft/format"
)

// Recipe says how the types of a file's tensors are chosen: a file type, and the
// options that llama-quantize has beside it. The zero value of an option is its absence.
type Recipe struct {
	FileType FileType
	// Imatrix says that an importance matrix is at hand; some rules depend on it.
	Imatrix bool
	// Pure gives every tensor the default type of the file type.
	Pure bool
	// LeaveOutput copies output.weight as it is.
	LeaveOutput bool
	// OutputType and TokenEmbeddingType fix the types of output.weight and of the
	// token embeddings. As in llama-quantize they are taken whatever the row length;
	// embeddings of each layer may be named by TensorTypes instead.
	OutputType, TokenEmbeddingType *format.Type
	// TensorTypes are tried in order on names; the first that matches wins, and its
	// tensor does not count in the recipe's running numbers. They are not looked
	// at when the default type is a float.
	TensorTypes []TensorType
}

// TensorType is a --tensor-type option: the type of all tensors whose name a
// pattern matches.
type TensorType struct {
	Pattern string // ECMAScript regular expression, searched anywhere in the name
	Type    format.Type

	re *regexp2.Regexp
}

// ParseTensorType reads "PATTERN=TYPE". The pattern is lower-cased first, as
// llama-quantize does.
func ParseTensorType(s string) (TensorType, error) {
	pattern, name, ok := strings.Cut(s, "=")
	if !ok || pattern == "" || name == "" {
		return TensorType{}, format.Usagef("tensor type %q is not PATTERN=TYPE", s)
	}
	typ, err := format.ParseType(name)
	if err != nil {
		return TensorType{}, err
	}
	if !typ.GGML() {
		return TensorType{}, format.Usagef("tensor type %q: %v cannot stand in a GGUF file", s, typ)
	}
	t := TensorType{Pattern: strings.ToLower(pattern), Type: typ}
	return t, t.compile()
}

func (t *TensorType) compile() (err error) {
	if t.re, err = regexp2.Compile(t.Pattern, regexp2.ECMAScript); err != nil {
		return format.Usagef("tensor type pattern %q: %v", t.Pattern, err)
	}
	return nil
}

// TensorDesc is what a recipe must know of a tensor.
type TensorDesc struct {
	Name  string
	Type  format.Type
	Shape []int64 // row-major
}

// Model is what a recipe must know of a model.
type Model struct {
	Arch    string // general.architecture
	Layers  int    // block_count
	Experts int    // expert_count, 0 for dense models
	Heads   int    // attention heads of the first layer
	KVHeads int    // and its key and value heads
	// Tensors in the order of the output file; running counts advance along it, so
	// the order is part of the recipe. See [Order].
	Tensors []TensorDesc
}

// Choice is the type of one tensor, and why.
type Choice struct {
	Tensor string
	Type   format.Type
	Why    string // the rule, for people
	// Quantize says that the recipe chose the type; otherwise the tensor is copied.
	Quantize bool
	// NeedsImatrix says that the tensor must not be encoded without importance.
	NeedsImatrix bool
	// Fallback says that the rows are no whole blocks of the type the rules wanted.
	Fallback bool
}

// Order sorts tensors as llama-quantize writes them: those outside layers first,
// then by layer, and by name within.
func Order(tensors []TensorDesc) {
	slices.SortFunc(tensors, func(a, b TensorDesc) int { return compareNames(a.Name, b.Name) })
}

func compareNames(a, b string) int {
	if c := cmp.Compare(layerOf(a), layerOf(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// layerOf is the number in "blk.N.", or -1.
func layerOf(name string) int {
	rest, ok := strings.CutPrefix(name, "blk.")
	digits, _, ok2 := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || !ok2 || err != nil {
		return -1
	}
	return int(n)
}

// Types chooses the type of every tensor of m, in order, exactly as llama-quantize
// does. It fails if a tensor cannot have any type that the rules allow, or a
// pattern is no regular expression.
func (r Recipe) Types(m Model) ([]Choice, error) {
	info, ok := r.FileType.Info()
	if !ok {
		return nil, format.Usagef("no file type has the number %d", uint32(r.FileType))
	}
	overrides := slices.Clone(r.TensorTypes)
	for i := range overrides {
		if overrides[i].re == nil {
			if err := overrides[i].compile(); err != nil {
				return nil, err
			}
		}
	}
	s := newMixture(&m, &r, info)
	choices := make([]Choice, 0, len(m.Tensors))
	for _, t := range m.Tensors {
		c := Choice{Tensor: t.Name, Type: t.Type}
		if why := r.kept(m.Arch, t); why != "" {
			c.Why = why
			choices = append(choices, c)
			continue
		}
		c.Quantize = true
		var err error
		if c.Type, c.Why, c.Fallback, err = r.choose(s, t, info, overrides); err != nil {
			return nil, err
		}
		c.NeedsImatrix = needsImatrix(t.Name, c.Type, r.FileType)
		choices = append(choices, c)
	}
	return choices, nil
}

// choose is the order in which options, rules and fallbacks are asked.
func (r Recipe) choose(s *mixture, t TensorDesc, info FileTypeInfo, overrides []TensorType) (typ format.Type, why string, fell bool, err error) {
	named, err := firstMatch(overrides, t.Name)
	if err != nil {
		return 0, "", false, err
	}
	switch cat := categoryOf(t.Name); {
	case r.TokenEmbeddingType != nil && cat == tokenEmbedding && (t.Name != perLayerEmbedding || named == nil):
		return *r.TokenEmbeddingType, "token embedding type asked for", false, nil
	case r.OutputType != nil && cat == outputHead:
		return *r.OutputType, "output tensor type asked for", false, nil
	}
	typ, why = info.Default, "default of "+info.Name
	if !typ.Quantized() {
		return typ, why, false, nil
	}
	if named != nil {
		typ, why = named.Type, fmt.Sprintf("tensor type asked for by pattern %q", named.Pattern)
	} else if !r.Pure {
		if mixed, rule, err := s.typeOf(t); err != nil {
			return 0, "", false, err
		} else if rule != "" {
			typ, why = mixed, rule
		}
	}
	fitting, note, err := fit(t, typ)
	if err != nil {
		return 0, "", false, err
	}
	return fitting, why + note, note != "", nil
}

// firstMatch is the first of overrides whose pattern is found in name, or nil.
func firstMatch(overrides []TensorType, name string) (*TensorType, error) {
	for i := range overrides {
		o := &overrides[i]
		if ok, err := o.re.MatchString(name); err != nil {
			return nil, fmt.Errorf("tensor type pattern %q on %s: %w", o.Pattern, name, err)
		} else if ok {
			return o, nil
		}
	}
	return nil, nil
}

// fallbacks give the type that stands in for one whose blocks do not divide a row.
// A type of blocks of 32 that is not among them becomes F16.
var fallbacks = map[format.Type]format.Type{
	format.IQ1_S: format.IQ4_NL, format.IQ1_M: format.IQ4_NL,
	format.IQ2_XXS: format.IQ4_NL, format.IQ2_XS: format.IQ4_NL, format.IQ2_S: format.IQ4_NL,
	format.IQ3_XXS: format.IQ4_NL, format.IQ3_S: format.IQ4_NL, format.IQ4_XS: format.IQ4_NL,
	format.Q2_0: format.Q4_0, format.Q2_K: format.Q4_0, format.Q3_K: format.Q4_0,
	format.TQ1_0: format.Q4_0, format.TQ2_0: format.Q4_0,
	format.Q4_K: format.Q5_0, format.Q5_K: format.Q5_1, format.Q6_K: format.Q8_0,
}

// fit replaces typ if its blocks do not divide the rows of t; note says so.
func fit(t TensorDesc, typ format.Type) (fitting format.Type, note string, err error) {
	cols := t.Shape[len(t.Shape)-1]
	if cols%int64(typ.BlockSize()) == 0 {
		return typ, "", nil
	}
	next, ok := fallbacks[typ]
	switch {
	case !ok && typ.BlockSize() > 32:
		return 0, "", fmt.Errorf("tensor %s: rows of %d are not whole blocks of %v, and no type stands in for it", t.Name, cols, typ)
	case !ok, cols%int64(next.BlockSize()) != 0:
		next = format.F16
	}
	return next, fmt.Sprintf("; rows of %d are not whole blocks of %v: %v instead", cols, typ, next), nil
}

// needsImatrix says which types are refused without importance: garbage would come
// out. Embeddings and head are excepted, they are never in the matrix.
func needsImatrix(name string, typ format.Type, file FileType) bool {
	if c := categoryOf(name); c == tokenEmbedding || c == outputHead {
		return false
	}
	switch typ {
	case format.IQ3_XXS, format.IQ2_XXS, format.IQ2_XS, format.IQ2_S, format.IQ1_M, format.IQ1_S:
		return true
	case format.Q2_K:
		return file == Q2_K_S
	}
	return false
}
