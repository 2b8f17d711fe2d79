package model

import (
	"fmt"
	"math"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/fmath"
)

// Activation is the function between the two products of a feed-forward block.
type Activation int

// The gated activations: act(gate) * up.
const (
	SiLU Activation = iota
	GELU            // the tanh form
)

// RopeKind says how the rotary embedding of one layer is made.
type RopeKind int

// A layer uses one of two sets of angles, or none.
const (
	RopeGlobal RopeKind = iota
	RopeLocal           // layers with a window, where the model has a base of their own
	RopeNone
)

// RopeScaling is the way angles are changed for contexts longer than the model was first trained on.
type RopeScaling struct {
	Type           string  // "", "linear", "yarn", "longrope"
	Factor         float64 // positions are divided by it (linear), or its part of the frequencies (yarn)
	Original       int     // context of the first training
	AttnFactor     float64 // cosines and sines are multiplied by it, besides MScale; 0 is 1
	MScale         float64 // yarn: and by this, 0.1·ln(Factor) + 1 unless the file says otherwise
	BetaFast       float64 // yarn: turns in the original context above which frequencies stay
	BetaSlow       float64 // yarn: turns below which they are divided by Factor
	ExtFactor      float64 // yarn: share of the blend; 1 unless the file says otherwise
	FreqDivisors   bool    // rope_freqs.weight divides the frequencies (llama 3)
	LongShortTable bool    // rope_factors_long and _short do (longrope)
}

// Rope is a set of angles.
type Rope struct {
	Base    float64
	Scaling RopeScaling
}

// MoE describes the mixture layers of a model; Experts is 0 when it has none.
type MoE struct {
	Experts, Used int
	FF            int     // width of one expert
	Normalise     bool    // the weights of the experts used are made to sum to one
	Scale         float32 // the weights are multiplied by it
	SharedFF      int     // width of the expert that every token uses; 0 without one
}

// Layer is what differs from layer to layer.
type Layer struct {
	Window int // keys seen, the token's own included; 0 means all before it
	Rope   RopeKind
	Mixed  bool // its feed-forward is a mixture of experts
}

// Config is everything the blocks need to know of a model, read from its metadata
// and its tensors' shapes.
type Config struct {
	Arch    string
	Hidden  int
	FF      int
	Vocab   int
	Heads   int
	KVHeads int
	KeyDim  int // per head
	ValDim  int // per head
	Context int // tokens the model was made for
	Layers  []Layer

	Eps           float32
	Act           Activation
	EmbedScale    float32 // embeddings are multiplied by it
	ResidualScale float32 // what a block adds to the residual is multiplied by it
	LogitScale    float32 // logits are multiplied by it
	AttnScale     float32 // scores are multiplied by it
	AttnSoftcap   float32 // 0 is none
	FinalSoftcap  float32 // 0 is none

	NeoX    bool // rotates (i, i+d/2); else (2i, 2i+1)
	RopeDim int  // dimensions rotated, of the first ones of a head
	Global  Rope
	Local   Rope

	TiedHead bool // the head is token_embd.weight
	MoE      MoE
}

// QDim, KDim and VDim are the widths of all query, key and value heads together.
func (c *Config) QDim() int { return c.Heads * c.KeyDim }
func (c *Config) KDim() int { return c.KVHeads * c.KeyDim }
func (c *Config) VDim() int { return c.KVHeads * c.ValDim }

// ODim is the width of the attention's output before its projection.
func (c *Config) ODim() int { return c.Heads * c.ValDim }

// Dimensions beyond these are refused before anything is allocated: no model has
// them, and products of two stay far from overflow.
const (
	maxDim    = 1 << 24
	maxLayers = 1 << 12
)

// ConfigOf reads the configuration of src. Keys that are missing, contradict the
// tensors or ask for something that the blocks do not do are errors.
func ConfigOf(src *arch.Model) (Config, error) {
	row, ok := archs[src.Arch]
	if !ok {
		return Config{}, format.Unsupported("running models of architecture %q; %s can be run", src.Arch, strings.Join(Supported(), ", "))
	}
	r := keyReader{m: src}
	if err := r.refuseUnknown(row); err != nil {
		return Config{}, err
	}
	c := Config{
		Arch: src.Arch, Hidden: r.dim("embedding_length"), FF: r.dimOr("feed_forward_length", 0),
		Heads: r.dim("attention.head_count"), Context: r.dimOr("context_length", 0),
		Eps: r.float("attention.layer_norm_rms_epsilon", 0),
		Act: row.act, NeoX: row.neox,
	}
	c.KVHeads = r.dimOr("attention.head_count_kv", c.Heads)
	layers := r.dim("block_count")
	if r.err != nil {
		return c, r.err
	}
	if layers > maxLayers {
		return c, r.corrupt("block_count", fmt.Errorf("%d layers", layers))
	}
	if c.Eps <= 0 {
		return c, r.corrupt("attention.layer_norm_rms_epsilon", fmt.Errorf("missing or not positive"))
	}
	if c.Heads%c.KVHeads != 0 {
		return c, r.corrupt("attention.head_count_kv", fmt.Errorf("%d query heads do not share %d key heads evenly", c.Heads, c.KVHeads))
	}
	if !r.has("attention.key_length") && c.Hidden%c.Heads != 0 {
		return c, r.corrupt("attention.head_count", fmt.Errorf("%d heads do not divide %d", c.Heads, c.Hidden))
	}
	c.KeyDim = r.dimOr("attention.key_length", c.Hidden/c.Heads)
	c.ValDim = r.dimOr("attention.value_length", c.Hidden/c.Heads)
	c.scales(&r, row)
	c.rope(&r, row)
	c.mixture(&r, row, src)
	c.layers(&r, row, layers, src)
	if r.err != nil {
		return c, r.err
	}
	embd := src.View("token_embd.weight")
	if embd == nil || len(embd.Shape) != 2 {
		return c, &format.CorruptError{Path: src.Path, Offset: -1, Field: "token_embd.weight", Err: fmt.Errorf("the model has no such matrix")}
	}
	if embd.Shape[0] <= 0 || embd.Shape[0] > maxDim {
		return c, &format.CorruptError{Path: src.Path, Offset: -1, Field: "token_embd.weight", Err: fmt.Errorf("a vocabulary of %d", embd.Shape[0])}
	}
	c.Vocab = int(embd.Shape[0])
	c.TiedHead = src.View("output.weight") == nil
	return c, nil
}

// scales reads the factors and caps.
func (c *Config) scales(r *keyReader, row archRow) {
	c.EmbedScale, c.ResidualScale, c.LogitScale = 1, 1, 1
	if row.embedSqrt {
		c.EmbedScale = float32(math.Sqrt(float64(c.Hidden)))
	}
	if row.scaleKeys {
		c.EmbedScale = r.float("embedding_scale", 1)
		c.ResidualScale = r.float("residual_scale", 1)
		if s := r.float("logit_scale", 1); s != 0 {
			c.LogitScale = 1 / s
		}
	}
	if row.softcaps {
		c.AttnSoftcap = r.float("attn_logit_softcapping", 50)
		c.FinalSoftcap = r.float("final_logit_softcapping", 30)
	} else {
		c.FinalSoftcap = r.float("final_logit_softcapping", 0)
	}
	c.AttnScale = float32(r.m.AttentionScale())
}

func (c *Config) rope(r *keyReader, row archRow) {
	c.RopeDim = r.dimOr("rope.dimension_count", c.KeyDim)
	if c.RopeDim > c.KeyDim || c.RopeDim%2 != 0 {
		r.fail(r.corrupt("rope.dimension_count", fmt.Errorf("%d of a head's %d dimensions", c.RopeDim, c.KeyDim)))
	}
	c.Global.Base = float64(r.float("rope.freq_base", row.freqBase()))
	c.Local = Rope{Base: float64(r.float("rope.freq_base_swa", float32(c.Global.Base)))}
	if row.localBase != 0 {
		c.Local.Base = float64(r.float("rope.freq_base_swa", row.localBase))
	}
	if c.Global.Base <= 0 || c.Local.Base <= 0 {
		r.fail(r.corrupt("rope.freq_base", fmt.Errorf("not positive")))
	}
	s := &c.Global.Scaling
	s.FreqDivisors = r.m.View("rope_freqs.weight") != nil
	s.LongShortTable = r.m.View("rope_factors_long.weight") != nil
	s.AttnFactor = float64(r.float("rope.scaling.attn_factor", 0))
	s.Original = r.dimOr("rope.scaling.original_context_length", c.Context)
	s.Factor = float64(r.float("rope.scaling.factor", 0))
	if s.Factor == 0 {
		s.Factor = float64(r.float("rope.scale_linear", 0)) // the key of older files
	}
	name := r.str("rope.scaling.type")
	switch name {
	case "", "none":
		if s.Factor != 0 && s.Factor != 1 && name == "" {
			s.Type = "linear" // what the reference reader takes when only the factor stands there
		}
	case "linear", "longrope":
		s.Type = name
	case "yarn":
		s.Type = name
		s.ExtFactor = float64(r.float("rope.scaling.yarn_ext_factor", 1))
		s.BetaFast = float64(r.float("rope.scaling.yarn_beta_fast", 32))
		s.BetaSlow = float64(r.float("rope.scaling.yarn_beta_slow", 1))
		s.MScale = 1
		if s.ExtFactor != 0 && s.Factor > 1 {
			s.MScale = float64(0.1*fmath.Log(s.Factor)) + 1
		}
		if a := r.float("rope.scaling.yarn_attn_factor", 0); a != 0 {
			s.MScale = float64(a)
		}
	default:
		r.fail(format.Unsupported("rope scaling %q", name))
	}
	if (s.Type == "linear" || s.Type == "yarn") && s.Factor <= 0 {
		r.fail(r.corrupt("rope.scaling.factor", fmt.Errorf("missing or not positive")))
	}
}

func (c *Config) mixture(r *keyReader, row archRow, src *arch.Model) {
	n := r.dimOr("expert_count", 0)
	if n == 0 {
		return
	}
	c.MoE = MoE{
		Experts: n, Used: r.dimOr("expert_used_count", 0), FF: r.dimOr("expert_feed_forward_length", c.FF),
		Normalise: row.normaliseExperts, Scale: r.float("expert_weights_scale", 1),
	}
	if b, ok := src.Meta.Bool(src.Arch + ".expert_weights_norm"); ok {
		c.MoE.Normalise = b
	}
	if b, ok := src.Meta.Bool(arch.KeyNormTopK); ok {
		c.MoE.Normalise = b
	}
	if c.MoE.Used < 1 || c.MoE.Used > n {
		r.fail(r.corrupt("expert_used_count", fmt.Errorf("%d of %d experts", c.MoE.Used, n)))
	}
	if v := src.View("blk.0.ffn_gate_shexp.weight"); v != nil && len(v.Shape) == 2 {
		c.MoE.SharedFF = int(min(v.Shape[0], maxDim))
	}
}

func (c *Config) layers(r *keyReader, row archRow, n int, src *arch.Model) {
	window, slides, rotates := src.SlidingWindow(), src.SlidingLayers(), src.RopeLayers()
	if len(slides) < n || len(rotates) < n {
		r.fail(r.corrupt("block_count", fmt.Errorf("%d layers in a file of %d tensors", n, len(src.Views))))
		return
	}
	if window < 0 || window > maxDim {
		r.fail(r.corrupt("attention.sliding_window", fmt.Errorf("%d is out of range", window)))
	}
	period, hasPeriod := src.Meta.Int(r.key("attention.sliding_window_pattern"))
	c.Layers = make([]Layer, n)
	for i := range c.Layers {
		l := &c.Layers[i]
		if hasPeriod {
			slides[i] = window > 0 && period > 0 && (int64(i)+1)%period != 0
		}
		if slides[i] {
			l.Window = int(window)
			if row.localBase != 0 {
				l.Rope = RopeLocal
			}
		}
		if !rotates[i] {
			l.Rope = RopeNone
		}
		l.Mixed = src.View(fmt.Sprintf("blk.%d.ffn_gate_inp.weight", i)) != nil
		if l.Mixed && c.MoE.Experts == 0 {
			r.fail(r.corrupt("expert_count", fmt.Errorf("layer %d has a router, but the key is missing", i)))
		}
	}
}

// keyReader reads keys of the model's architecture and remembers the first error.
type keyReader struct {
	m   *arch.Model
	err error
}

func (r *keyReader) key(name string) string     { return r.m.Arch + "." + name }
func (r *keyReader) has(name string) bool       { return r.m.Meta.Has(r.key(name)) }
func (r *keyReader) str(name string) (s string) { s, _ = r.m.Meta.Str(r.key(name)); return s }

func (r *keyReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *keyReader) corrupt(name string, err error) error {
	return &format.CorruptError{Path: r.m.Path, Offset: -1, Field: r.key(name), Err: err}
}

func (r *keyReader) dim(name string) int {
	if !r.has(name) {
		r.fail(r.corrupt(name, fmt.Errorf("the key is missing")))
		return 1
	}
	if n := r.dimOr(name, 1); n > 0 {
		return n
	}
	r.fail(r.corrupt(name, fmt.Errorf("must be positive")))
	return 1
}

func (r *keyReader) dimOr(name string, def int) int {
	v, ok := r.m.Meta.Get(r.key(name))
	if !ok {
		return def
	}
	n, ok := r.m.Meta.Int(r.key(name))
	if list, isList := r.m.Meta.Ints(r.key(name)); isList && len(list) > 0 {
		n, ok = list[0], true
		for _, x := range list {
			if x != n {
				r.fail(format.Unsupported("%s differs from layer to layer", r.key(name)))
			}
		}
	}
	if !ok {
		r.fail(r.corrupt(name, fmt.Errorf("a %T is no integer", v)))
		return def
	}
	if n < 0 || n > maxDim {
		r.fail(r.corrupt(name, fmt.Errorf("%d is out of range", n)))
		return def
	}
	return int(n)
}

func (r *keyReader) float(name string, def float32) float32 {
	v, ok := r.m.Meta.Get(r.key(name))
	if !ok {
		return def
	}
	f, ok := r.m.Meta.Float(r.key(name))
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		r.fail(r.corrupt(name, fmt.Errorf("%v is no finite number", v)))
		return def
	}
	return float32(f)
}

// refuseUnknown refuses a key of the architecture that changes what a model
// computes and that nothing here reads.
func (r *keyReader) refuseUnknown(row archRow) error {
	for _, kv := range r.m.Meta.All() {
		name, ok := strings.CutPrefix(kv.Key, r.m.Arch+".")
		if !ok || knownKeys[name] {
			continue
		}
		switch {
		case row.scaleKeys && scaleKeys[name]:
		case strings.HasPrefix(name, "attention."), strings.HasPrefix(name, "rope."), strings.HasPrefix(name, "expert_"),
			strings.HasSuffix(name, "_scale"), strings.HasSuffix(name, "softcapping"):
			return format.Unsupported("metadata key %s (%v): nothing here acts on it, and the model might mean it", kv.Key, kv.Value)
		}
	}
	return nil
}
