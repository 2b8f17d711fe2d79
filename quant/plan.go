package quant

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// Source is what is quantized: the metadata of a GGUF file, or the metadata it would
// have, and its tensors. An arch.Model gives both.
type Source struct {
	Meta  *gguf.Meta
	Views []*format.View
	// StoredAs, if not nil, gives the type that a tensor has in the float file a
	// converter would write of the source; tensors that are not quantized get it.
	// Without it they keep the type they have.
	StoredAs func(v *format.View) format.Type
}

// Options says how a source is quantized.
type Options struct {
	Recipe Recipe
	// Copy copies all tensors; the recipe is not looked at.
	Copy bool
	// Imatrix is the importance matrix, or nil; Recipe.Imatrix is set by it.
	Imatrix *Imatrix
	// AllowRequantize lets tensors be quantized that are quantized already.
	AllowRequantize bool
	// KeepOrder leaves the tensors in the order of the source, so that they can be
	// split as it is; see [Order] for the order else.
	KeepOrder bool
	// PruneLayers are the numbers of blk.N that are left out; those after them move up.
	PruneLayers []int
	// Override sets metadata keys at the end, as --override-kv does.
	Override []gguf.KV
	// DryRun makes a plan also where an importance matrix is missing that running it
	// would need; the reason of such outputs says so.
	DryRun bool
}

// quantizationVersion is GGML_QNT_VERSION, the version of the block formats.
const quantizationVersion = uint32(2)

// NewPlan plans a quantized file: the tensors in order, each with its type and
// reason, and the metadata. It reads headers only. The views must stay open until
// the plan is run.
//
// A usage error says what an option would change: a tensor that is quantized
// already, or one that must not be encoded without importance.
func NewPlan(src Source, opt Options) (*format.Plan, *gguf.Meta, error) {
	meta, err := planMeta(src, opt)
	if err != nil {
		return nil, nil, err
	}
	views, layers, err := prune(src, opt.PruneLayers)
	if err != nil {
		return nil, nil, err
	}
	arch, _ := src.Meta.Str("general.architecture")
	if len(opt.PruneLayers) > 0 {
		setLast(meta, arch+".block_count", uint32(layers))
	}
	if !opt.KeepOrder {
		slices.SortStableFunc(views, func(a, b planned) int { return compareNames(a.name, b.name) })
	}
	m := modelOf(src.Meta, arch, views, src.StoredAs)
	opt.Recipe.Imatrix = opt.Imatrix != nil
	choices, err := choicesFor(m, opt)
	if err != nil {
		return nil, nil, err
	}
	plan := &format.Plan{}
	for i, c := range choices {
		outputs, err := views[i].outputs(c, opt)
		if err != nil {
			return nil, nil, err
		}
		plan.Outputs = append(plan.Outputs, outputs...)
	}
	return plan, meta, nil
}

// planMeta is the metadata of the file: the source's, with the keys that
// llama-quantize sets moved to the end, as it does.
func planMeta(src Source, opt Options) (*gguf.Meta, error) {
	meta := src.Meta.Clone()
	for _, kv := range src.Meta.All() {
		if strings.HasPrefix(kv.Key, "graft.") || strings.HasPrefix(kv.Key, "split.") {
			meta.Delete(kv.Key)
		}
	}
	setLast(meta, "general.quantization_version", quantizationVersion)
	if opt.Copy {
		v, ok := src.Meta.Get("general.file_type")
		if !ok {
			v = guessedFileType(src.Views)
		}
		setLast(meta, "general.file_type", v)
	} else {
		setLast(meta, "general.file_type", uint32(opt.Recipe.FileType))
	}
	for _, kv := range opt.Override {
		setLast(meta, kv.Key, kv.Value)
	}
	if m := opt.Imatrix; m != nil {
		if len(m.Entries) == 0 {
			return nil, errors.New("the importance matrix has no entries")
		}
		setLast(meta, "quantize.imatrix.file", cutString(m.Path))
		if len(m.Datasets) > 0 {
			setLast(meta, "quantize.imatrix.dataset", cutString(m.Datasets[0]))
		}
		setLast(meta, "quantize.imatrix.entries_count", uint32(len(m.Entries)))
		if m.Chunks > 0 {
			setLast(meta, "quantize.imatrix.chunks_count", uint32(m.Chunks))
		}
	}
	return meta, nil
}

// fileTypeGuessed marks a general.file_type that was not given but guessed.
const fileTypeGuessed = 1024

// guessedFileType is the file type that llama.cpp takes a file for that does not say:
// the one named after the type that most tensors have, in the order of the output the first to
// have as many.
func guessedFileType(views []*format.View) uint32 {
	sorted := slices.SortedFunc(slices.Values(views), func(a, b *format.View) int { return compareNames(a.Name, b.Name) })
	counts := map[format.Type]int{}
	most, typ := 0, format.F32
	for _, v := range sorted {
		if counts[v.Type]++; counts[v.Type] > most {
			most, typ = counts[v.Type], v.Type
		}
	}
	guess, err := ParseFileType(typ.String())
	if err != nil {
		guess = F32
	}
	return uint32(guess) | fileTypeGuessed
}

// setLast sets a key and moves it to the end, as ggml's writer does.
func setLast(meta *gguf.Meta, key string, v gguf.Value) {
	meta.Delete(key)
	meta.Set(key, v)
}

// cutString cuts to the 127 bytes that llama-quantize keeps of such a value.
func cutString(s string) string {
	if len(s) > 127 {
		s = strings.ToValidUTF8(s[:127], "")
	}
	return s
}

// planned is a view under the name it gets; the importance matrix knows it by its
// own.
type planned struct {
	name string
	view *format.View
}

// prune leaves out layers and renumbers those after them. layers is how many stay.
func prune(src Source, drop []int) (views []planned, layers int, err error) {
	seen := map[int]bool{}
	for _, v := range src.Views {
		n := layerOf(v.Name)
		if n >= 0 {
			seen[n] = true
		}
		if slices.Contains(drop, n) {
			continue
		}
		name := v.Name
		if n >= 0 {
			before := 0
			for _, d := range drop {
				if d < n {
					before++
				}
			}
			if before > 0 {
				name = "blk." + strconv.Itoa(n-before) + strings.TrimPrefix(name, "blk."+strconv.Itoa(n))
			}
		}
		views = append(views, planned{name, v})
	}
	for _, d := range drop {
		if !seen[d] {
			return nil, 0, format.Usagef("layer %d cannot be pruned: the model has no such layer", d)
		}
	}
	return views, len(seen) - len(drop), nil
}

// modelOf is the description that recipes go by.
func modelOf(meta *gguf.Meta, arch string, views []planned, storedAs func(*format.View) format.Type) Model {
	m := Model{Arch: arch}
	first := func(key string) (int, bool) {
		if n, ok := meta.Int(arch + key); ok {
			return int(n), true
		}
		if list, ok := meta.Ints(arch + key); ok && len(list) > 0 {
			return int(list[0]), true
		}
		return 0, false
	}
	m.Layers, _ = first(".block_count")
	m.Experts, _ = first(".expert_count")
	m.Heads, _ = first(".attention.head_count")
	var ok bool
	if m.KVHeads, ok = first(".attention.head_count_kv"); !ok {
		m.KVHeads = m.Heads
	}
	for _, v := range views {
		typ := v.view.Type
		if storedAs != nil {
			typ = storedAs(v.view)
		}
		m.Tensors = append(m.Tensors, TensorDesc{v.name, typ, v.view.Shape})
	}
	return m
}

func choicesFor(m Model, opt Options) ([]Choice, error) {
	if !opt.Copy {
		return opt.Recipe.Types(m)
	}
	choices := make([]Choice, len(m.Tensors))
	for i, t := range m.Tensors {
		choices[i] = Choice{Tensor: t.Name, Type: t.Type, Why: "copied, as asked"}
	}
	return choices, nil
}

// outputs makes the output of a choice; in an NVFP4 file there are two of some.
func (p planned) outputs(c Choice, opt Options) ([]*format.Output, error) {
	if c.Quantize && c.Type == format.NVFP4 && opt.Recipe.FileType == NVFP4 && !p.view.Type.Quantized() && ScaleName(p.name) != "" {
		outputs, err := scaledOutputs(p.name, p.view)
		if err == nil {
			outputs[1].Why = c.Why
		}
		return outputs, err
	}
	o, err := p.output(c, opt)
	return []*format.Output{o}, err
}

// output makes the output of a choice.
func (p planned) output(c Choice, opt Options) (*format.Output, error) {
	v := p.view
	why := c.Why
	var weights []float32
	raw, ok := v.Rows.(format.RawReader)
	if copied := ok && raw.RawType() == c.Type; c.Quantize && !copied {
		if v.Type.Quantized() && !opt.AllowRequantize {
			return nil, format.Usagef("tensor %s is %v already and would become %v, which loses more than quantizing a float file; --allow-requantize if there is none", v.Name, v.Type, c.Type)
		}
		var err error
		if weights, err = opt.weightsOf(v); err != nil {
			return nil, err
		}
		if weights == nil && c.NeedsImatrix {
			if !opt.DryRun {
				return nil, format.Usagef("tensor %s becomes %v, which is not usable without an importance matrix: give one that has this tensor", v.Name, c.Type)
			}
			why += "; needs an importance matrix"
		}
		if weights != nil {
			why += "; weighted by the importance matrix"
		}
	}
	var o *format.Output
	var err error
	if weights != nil && matrices(v.Shape) > 1 {
		o, err = stackOutput(p.name, c.Type, v, weights)
	} else {
		o, err = format.NewOutput(p.name, c.Type, v.Shape, v.Rows, weights)
	}
	if err != nil {
		return nil, err
	}
	o.Why = why
	return o, nil
}

// weightsOf finds the importance of a tensor's columns.
func (opt *Options) weightsOf(v *format.View) ([]float32, error) { return opt.Imatrix.For(v) }

// For finds the importance of a tensor's columns, matrix after matrix; nil if m is, or has none. The
// wrong number of them is an error, but for the embedding, whose columns a matrix
// of the output head does not fit.
func (m *Imatrix) For(v *format.View) ([]float32, error) {
	if m == nil {
		return nil, nil
	}
	w := m.Weights(v.Name)
	if w == nil {
		return nil, nil
	}
	if want := v.Shape[len(v.Shape)-1] * matrices(v.Shape); int64(len(w)) != want {
		if categoryOf(v.Name) == tokenEmbedding {
			return nil, nil
		}
		return nil, fmt.Errorf("the importance matrix has %d values for tensor %s, which has %d columns in all: it is of another model", len(w), v.Name, want)
	}
	return w, nil
}

// matrices is the number of matrices of a stack.
func matrices(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape[:max(len(shape)-2, 0)] {
		n *= d
	}
	return n
}

// stackOutput encodes a stack of matrices, each with weights of its own.
func stackOutput(name string, typ format.Type, v *format.View, weights []float32) (*format.Output, error) {
	rows := v.Shape[len(v.Shape)-2]
	cols := v.Shape[len(v.Shape)-1]
	o, err := format.NewOutput(name, typ, v.Shape, v.Rows, nil)
	if err != nil {
		return nil, err
	}
	codec, err := format.EncoderOf(typ)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", name, err)
	}
	o.Fill = func(dst []byte, unit int64) error {
		return format.WithRows(v.Rows, unit, int64(len(dst))/o.UnitBytes*cols, func(x []float32) error {
			for len(dst) > 0 {
				matrix := unit / rows
				n := min((matrix+1)*rows-unit, int64(len(dst))/o.UnitBytes)
				if err := codec.Encode(dst[:n*o.UnitBytes], x[:n*cols], int(cols), weights[matrix*cols:(matrix+1)*cols]); err != nil {
					return fmt.Errorf("matrix %d: %w", matrix, format.AtRow(err, unit%rows))
				}
				dst, x, unit = dst[n*o.UnitBytes:], x[n*cols:], unit+n
			}
			return nil
		})
	}
	return o, nil
}
