package merge

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// required stands for a parameter without a default.
var required = math.NaN()

// BlendOptions says how a recipe is carried out. The zero value is good.
type BlendOptions struct {
	Seed uint64 // of the methods that draw

	mask func(tensor string, model int, element int64) bool // see blendJob
}

// Blended is a model made by a recipe.
type Blended struct {
	*arch.Model
	Layers []int    // for each layer, the layer of Template that it stands for
	Inputs int      // most models that one tensor is made of
	Notes  []string // what people should know
	// Template is the model that metadata and files are taken from.
	Template *arch.Model
	Recipe   *Recipe

	tokens *arch.Model // whose tokenizer it has, nil: Template's
}

// Blend returns the model that a recipe makes of the opened models, by the paths that
// the recipe gives them: rows are made when they are read. It shares the models'
// files; closing it closes nothing.
//
// Memory: a block of rows of each model that goes into a tensor. What a method must
// know of whole tensors (lengths, angles, thresholds) it finds in passes over
// them, so that no tensor is ever in memory as a whole; the passes of a tensor are made
// when its first row is read.
func Blend(r *Recipe, models map[string]*arch.Model, opt BlendOptions) (*Blended, error) {
	method, err := blendByName(r.Method)
	if err != nil {
		return nil, err
	}
	plain := map[string]*arch.Model{}
	for _, path := range r.Models() {
		if models[path] == nil {
			return nil, fmt.Errorf("merge: the model %s is not there", path)
		}
		if plain[path], err = asWeights(models[path]); err != nil {
			return nil, err
		}
	}
	models = plain
	if method.base == baseNeeded && r.Base == "" {
		return nil, format.Usagef("merge_method %s needs a base_model", r.Method)
	}
	b := &blender{r: r, models: models, opt: opt, method: method, names: map[*arch.Model]map[string][]*arch.HFView{}}
	if b.template = models[r.Base]; b.template == nil {
		b.template = models[r.Slices[0].Sources[0].Model]
	}
	if b.round, err = roundTo(r.DType); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := b.tokenizer(); err != nil {
		return nil, err
	}
	views, err := b.plan()
	if err != nil {
		return nil, err
	}
	meta, err := b.meta()
	if err != nil {
		return nil, err
	}
	return &Blended{Model: arch.NewModel(b.template.Path, meta, views), Layers: b.layers, Inputs: b.inputs,
		Notes: b.notes, Template: b.template, Recipe: r, tokens: b.tokens}, nil
}

type blender struct {
	r        *Recipe
	models   map[string]*arch.Model
	opt      BlendOptions
	method   *blendMethod
	template *arch.Model
	round    func([]float32)
	names    map[*arch.Model]map[string][]*arch.HFView
	layers   []int
	inputs   int
	notes    []string
	tokens   *arch.Model // whose tokenizer the result has, nil: the template's
	vocab    []string    // its tokens, if models have others: rows are found by them; nil: by number
	rowOf    map[*arch.Model]map[string]int64
}

// check compares the models with the template, and the recipe's slices with the models.
func (b *blender) check() error {
	for _, path := range b.r.Models() {
		m := b.models[path]
		if m.Arch != b.template.Arch {
			return format.Usagef("%s is a %s model, %s a %s model", path, m.Arch, b.template.Path, b.template.Arch)
		}
		for _, v := range m.Views {
			if b.template.View(v.Name) == nil && !b.optional(v.Name) && !strings.HasPrefix(v.Name, "blk.") {
				return format.Unsupported("%s has a tensor %s, which %s lacks", path, v.Name, b.template.Path)
			}
		}
	}
	for i := range b.r.Slices {
		s := &b.r.Slices[i]
		for k := range s.Sources {
			m := &s.Sources[k]
			n := layerCount(b.models[m.Model])
			if b.r.Whole {
				m.To = n
			}
			if m.To > n {
				return format.Usagef("%s has %d layers, the recipe asks for %d to %d", m.Model, n, m.From, m.To)
			}
			if m.To-m.From != s.Sources[0].To-s.Sources[0].From {
				return format.Usagef("%s has %d layers, %s has %d", m.Model, n, s.Sources[0].Model, s.Sources[0].To)
			}
		}
		n := len(s.Sources)
		if b.method.base != baseIgnored {
			for _, m := range s.Sources {
				if m.Model == b.r.Base {
					n--
				}
			}
		}
		if n < b.method.min || b.method.max > 0 && n > b.method.max {
			return format.Usagef("merge_method %s blends %d models%s, the recipe names %d", b.r.Method, b.method.min, besides(b.method), n)
		}
	}
	return nil
}

func besides(m *blendMethod) string {
	out := ""
	if m.max != m.min {
		out = " or more"
	}
	if m.base == baseNeeded {
		out += " besides the base"
	}
	return out
}

// optional are tensors that a model may have and another not.
func (b *blender) optional(name string) bool { return strings.HasPrefix(name, "rope_f") }

func layerCount(m *arch.Model) int {
	n, _ := m.Meta.Int(m.Arch + ".block_count")
	return int(n)
}

var layerName = regexp.MustCompile(`^blk\.(\d+)\.`)

// layerOf gives the number of the layer that a tensor belongs to, -1 for none.
func layerOf(name string) int {
	m := layerName.FindStringSubmatch(name)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return -1
	}
	return n
}

// inLayer renames a layer's tensor.
func inLayer(name string, layer int) string {
	return layerName.ReplaceAllLiteralString(name, fmt.Sprintf("blk.%d.", layer))
}

// place is where a tensor of the result comes from.
type place struct {
	name   string // in the result
	slice  *RecipeSlice
	t      float64
	offset int // layer within the slice, -1 for what is in no layer
}

// plan makes the views, in the template's order.
func (b *blender) plan() ([]*format.View, error) {
	for i := range b.r.Slices {
		s := b.r.Slices[i].Sources
		at := 0
		for k, m := range s {
			if m.Model == b.r.Base {
				at = k
			}
		}
		for l := s[at].From; l < s[at].To; l++ {
			b.layers = append(b.layers, l)
		}
	}
	var views []*format.View
	done := false
	for _, v := range b.template.Views {
		if layerOf(v.Name) >= 0 {
			if done {
				continue
			}
			done = true
			more, err := b.planLayers()
			if err != nil {
				return nil, err
			}
			views = append(views, more...)
			continue
		}
		slice := &b.r.Slices[0]
		if strings.HasPrefix(v.Name, "output") {
			slice = &b.r.Slices[len(b.r.Slices)-1]
		}
		w, err := b.view(v, place{name: v.Name, slice: slice, offset: -1})
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", v.Name, err)
		}
		views = append(views, w)
	}
	return views, nil
}

func (b *blender) planLayers() ([]*format.View, error) {
	var views []*format.View
	layer := 0
	for i := range b.r.Slices {
		s := &b.r.Slices[i]
		n := s.Sources[0].To - s.Sources[0].From
		for off := range n {
			t := 1.0
			if n > 1 {
				t = float64(off) / float64(n-1)
			}
			like := b.layers[layer]
			for _, v := range b.template.Views {
				if layerOf(v.Name) != like {
					continue
				}
				p := place{name: inLayer(v.Name, layer), slice: s, t: t, offset: off}
				w, err := b.view(v, p)
				if err != nil {
					return nil, fmt.Errorf("tensor %s: %w", p.name, err)
				}
				views = append(views, w)
			}
			layer++
		}
	}
	return views, nil
}

// hfNames gives the Hugging Face views of a model's tensors, by GGUF name: one, or
// one for each expert of a stack; none for what only GGUF has.
func (b *blender) hfNames(m *arch.Model) (map[string][]*arch.HFView, error) {
	if names := b.names[m]; names != nil {
		return names, nil
	}
	names := map[string][]*arch.HFView{}
	if m.Table != nil {
		views, err := m.HF()
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			names[v.GGUF] = append(names[v.GGUF], v)
		}
	}
	b.names[m] = names
	return names, nil
}

// source finds a tensor of a model, which may use its embedding as its head.
func source(m *arch.Model, name string) *format.View {
	v := m.View(name)
	if v == nil && name == "output.weight" {
		v = m.View("token_embd.weight")
	}
	return v
}

// view makes the view of one tensor of the result. like is the template's.
func (b *blender) view(like *format.View, p place) (*format.View, error) {
	names, err := b.hfNames(b.template)
	if err != nil {
		return nil, err
	}
	out := &format.View{Name: p.name, Type: b.typeOf(like), Shape: like.Shape, Why: b.r.Method}
	parts := names[like.Name]
	if b.template.Table != nil && parts == nil { // rope factors: no weights
		out.Rows, out.From, out.Type, out.Why = like.Rows, like.From, like.Type, "of "+b.template.Path
		return out, nil
	}
	sources := b.sourcesOf(p, like)
	if b.vocab != nil && len(like.Shape) == 2 && (like.Name == "token_embd.weight" || like.Name == "output.weight") {
		w := *like
		w.Shape = []int64{int64(len(b.vocab)), like.Shape[1]}
		w.Rows = &tokenRows{n: int64(len(b.vocab)), cols: like.Shape[1]}
		like, out.Shape = &w, w.Shape
		for i := range sources {
			if err := b.byToken(&sources[i], like.Name); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range sources {
		v := s.view
		if v == nil {
			return nil, format.Unsupported("%s has no tensor %s", s.model, s.name)
		}
		if fmt.Sprint(v.Shape) != fmt.Sprint(like.Shape) {
			return nil, format.Unsupported("its shape is %v in %s and %v in %s: models of other sizes or vocabularies are not blended", v.Shape, s.model, like.Shape, b.template.Path)
		}
		out.From = append(out.From, v.From...)
	}
	rows, cols := like.Rows.Dims()
	segs := max(len(parts), 1)
	bl := &blendedRows{rows: rows, cols: cols, each: rows / int64(segs), open: b.method.open, segs: make([]segment, segs)}
	order, _ := b.template.RowOrder(like.Name)
	for e := range segs {
		name, shift := p.name, float32(0)
		if parts != nil {
			name, shift = parts[e].Name, parts[e].Shift
			if p.offset >= 0 {
				name = renumber(name, layerOf(like.Name), layerOf(p.name))
			}
		}
		j := &blendJob{name: name, rows: bl.each, cols: cols, order: order, round: b.round, seed: b.opt.Seed, mask: b.opt.mask}
		j.global = func(param string, def float64) float64 { return b.param(p, name, "", param, def) }
		for _, s := range sources {
			in := blendInput{rows: s.view.Rows, first: int64(e) * bl.each, shift: shift, param: func(param string, def float64) (float64, error) {
				v := b.param(p, name, s.model, param, def)
				if v != v {
					return 0, format.Usagef("the recipe gives no %s for %s of %s", param, name, s.model)
				}
				return v, nil
			}}
			if s.base {
				j.base = &in
			} else {
				j.models = append(j.models, in)
			}
		}
		bl.segs[e].job = j
		b.inputs = max(b.inputs, len(sources))
		// Parameters are looked up now, so that a recipe that lacks one fails before anything is written.
		if err := b.checkParams(j); err != nil {
			return nil, err
		}
	}
	out.Rows = bl
	if b.copied(bl, out.Type) {
		from := sources[0].view
		out.Rows, out.Type, out.Why = from.Rows, from.Type, "of "+sources[0].model
	}
	return out, nil
}

// checkParams asks for the parameters that every model must have.
func (b *blender) checkParams(j *blendJob) error {
	for _, name := range b.method.params {
		if name != "weight" && name != "t" {
			continue
		}
		for i := range j.models {
			if _, err := j.models[i].param(name, required); err != nil {
				return err
			}
		}
	}
	return nil
}

// renumber gives a Hugging Face name the number of another layer.
func renumber(name string, from, to int) string {
	return strings.Replace(name, fmt.Sprintf(".%d.", from), fmt.Sprintf(".%d.", to), 1)
}

// copied says whether a tensor is one model's as it is, to be copied byte for byte.
func (b *blender) copied(bl *blendedRows, typ format.Type) bool {
	if b.r.Method != "passthrough" {
		return false
	}
	for i := range bl.segs {
		if s, err := bl.segs[i].job.models[0].param("scale", 1); err != nil || s != 1 {
			return false
		}
	}
	raw, ok := bl.segs[0].job.models[0].rows.(format.RawReader)
	return ok && (raw.RawType() == typ || !b.r.HasDType)
}

// sourceTensor is one model's part in a tensor.
type sourceTensor struct {
	model, name string
	view        *format.View
	base        bool
}

// sourcesOf lists the tensors that go into one of the result: the models in the
// recipe's order, and the base.
func (b *blender) sourcesOf(p place, like *format.View) []sourceTensor {
	var out []sourceTensor
	useBase := b.method.base != baseIgnored && b.r.Base != ""
	add := func(model string, from int, base bool) {
		name := like.Name
		if p.offset >= 0 {
			name = inLayer(name, from+p.offset)
		}
		out = append(out, sourceTensor{model, name, source(b.models[model], name), base})
	}
	seen := false
	for _, m := range p.slice.Sources {
		base := useBase && m.Model == b.r.Base
		seen = seen || base
		add(m.Model, m.From, base)
	}
	if useBase && !seen {
		add(b.r.Base, p.slice.Sources[0].From, true)
	}
	return out
}

// param looks a parameter up as mergekit does: the model's own, the slice's, the
// recipe's, the default.
func (b *blender) param(p place, tensor, model, name string, def float64) float64 {
	try := func(params map[string]setting) (float64, bool) {
		s, ok := params[name]
		if !ok {
			return 0, false
		}
		return s.at(tensor, p.t)
	}
	if model != "" {
		for _, m := range p.slice.Sources {
			if m.Model != model {
				continue
			}
			if v, ok := try(m.params); ok {
				return v
			}
		}
	}
	if v, ok := try(p.slice.params); ok {
		return v
	}
	if v, ok := try(b.r.params); ok {
		return v
	}
	return def
}

// typeOf is the type of a tensor of the result: the recipe's or the template's, if that is a float's.
func (b *blender) typeOf(like *format.View) format.Type {
	if b.r.HasOut {
		return b.r.OutDType
	}
	if like.Type == format.F32 || like.Type == format.BF16 || like.Type == format.F16 {
		return like.Type
	}
	return format.F16
}
