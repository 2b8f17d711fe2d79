package quant

import (
	"fmt"

	"github.com/graft-lora/graft/format"
)

// mixture is the state of a recipe while it goes along the tensors of a model: the
// rules ask for the running number of a tensor within its category.
type mixture struct {
	m      *Model
	r      *Recipe
	info   FileTypeInfo
	gqa    int // query heads for each key and value head
	tied   bool
	nAttnV int

	attnV, ffnDown, ffnGate, ffnUp int // running numbers
}

func newMixture(m *Model, r *Recipe, info FileTypeInfo) *mixture {
	s := &mixture{m: m, r: r, info: info, tied: true}
	if m.KVHeads > 0 {
		s.gqa = m.Heads / m.KVHeads
	}
	for _, t := range m.Tensors {
		switch categoryOf(t.Name) {
		case attnV:
			s.nAttnV++
		case outputHead:
			s.tied = false
		}
	}
	return s
}

// seventyB says whether llama.cpp takes the model for one of the 70B class.
func (m *Model) seventyB() bool {
	switch m.Arch {
	case "llama":
		return m.Layers == 80 && m.Heads != m.KVHeads && m.Experts != 8
	case "qwen2", "deci", "olmo":
		return m.Layers == 80
	case "jais2":
		return m.Layers == 68
	}
	return false
}

// is says whether the file type is one of those.
func (s *mixture) is(types ...FileType) bool {
	for _, t := range types {
		if s.r.FileType == t {
			return true
		}
	}
	return false
}

// moreBits picks the layers that the _M mixtures give more bits: the first and the
// last eighth, and every third between.
func moreBits(i, n int) bool { return i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2 }

// layer is the number that the rules of feed-forward tensors take for the layer: in
// models with experts the one in the name, else the running number.
func (s *mixture) layer(name string, running int) (int, error) {
	if s.m.Experts <= 1 {
		return running, nil
	}
	i := layerOf(name)
	if i < 0 || i >= s.m.Layers {
		return 0, fmt.Errorf("tensor %s: its name gives no layer of %d", name, s.m.Layers)
	}
	return i, nil
}

// typeOf applies the rules to t. An empty why means that none speaks of it.
func (s *mixture) typeOf(t TensorDesc) (typ format.Type, why string, err error) {
	cat := categoryOf(t.Name)
	if hasPart(t.Name, eightBitsOf[s.m.Arch]) {
		return format.Q8_0, "no fewer than eight bits in " + s.m.Arch, nil
	}
	switch {
	case s.is(NVFP4):
		typ, why = s.nvfp4(t)
	case cat == outputHead, s.tied && cat == tokenEmbedding:
		typ, why = s.head(t, cat)
	case s.is(MXFP4_MOE):
		typ, why = s.mxfp4(t, cat)
	case cat == tokenEmbedding:
		typ, why = s.embedding()
	case s.is(IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M, IQ1_S, IQ1_M):
		typ, why = s.tiny(cat)
	case cat == attnV:
		typ, why = s.value()
		s.attnV++
	case cat == attnK:
		typ, why = s.key()
	case cat == attnQ:
		typ, why = s.query()
	case cat == attnOutput:
		typ, why = s.attentionOutput()
	case cat == ffnDown:
		var i int
		if i, err = s.layer(t.Name, s.ffnDown); err == nil {
			typ, why = s.down(i)
		}
		s.ffnDown++
	case cat == ffnGate:
		typ, why, err = s.gateUp(t.Name, &s.ffnGate)
	case cat == ffnUp:
		typ, why, err = s.gateUp(t.Name, &s.ffnUp)
	}
	return typ, why, err
}

// head is the rule of the output matrix, which in a tied model is the embedding.
func (s *mixture) head(t TensorDesc, cat category) (format.Type, string) {
	what := "output head"
	if cat == tokenEmbedding {
		what = "token embedding that is the output head too"
	}
	if s.r.OutputType != nil {
		return *s.r.OutputType, what + ": output tensor type asked for"
	}
	cols := t.Shape[len(t.Shape)-1]
	switch {
	case s.is(MXFP4_MOE), s.m.Arch == "falcon", cols%int64(s.info.Default.BlockSize()) != 0:
		return format.Q8_0, what
	case s.is(IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ2_S, IQ2_M, IQ1_M):
		return format.Q5_K, what + " of a small type"
	case s.info.Default != format.Q8_0:
		return format.Q6_K, what
	}
	return 0, ""
}

func (s *mixture) mxfp4(t TensorDesc, cat category) (format.Type, string) {
	stacked := len(t.Shape) > 2 && t.Shape[len(t.Shape)-3] > 1
	ffn := cat == ffnUp || cat == ffnGate || cat == ffnDown
	if stacked && (s.m.Arch != "bailingmoe3" || ffn) {
		return format.MXFP4, "a stack of matrices"
	}
	return format.Q8_0, "not a stack of experts"
}

func (s *mixture) embedding() (format.Type, string) {
	const why = "token embedding"
	switch {
	case s.is(IQ2_XXS, IQ2_XS, IQ1_S, IQ1_M):
		return format.Q2_K, why
	case s.is(IQ2_S, IQ2_M, IQ3_XXS):
		return format.IQ3_S, why
	case s.is(TQ1_0, TQ2_0, Q2_0):
		return format.Q4_K, why
	}
	return 0, ""
}

// tiny is the recipe of the 1- and 2-bit IQ types. Its ffn_down counts tensors,
// also in models with experts.
func (s *mixture) tiny(cat category) (format.Type, string) {
	better := s.is(IQ2_S, IQ2_M)
	switch cat {
	case attnV:
		s.attnV++
		switch {
		case s.gqa >= 4 || s.m.Experts >= 4:
			return format.Q4_K, "attention values are few and count much"
		case better:
			return format.IQ3_S, "attention values"
		}
		return format.Q2_K, "attention values"
	case attnK:
		if s.m.Experts == 8 {
			return format.Q4_K, "attention keys of an 8-expert model"
		}
	case ffnDown:
		s.ffnDown++
		if s.ffnDown-1 < s.m.Layers/8 {
			if better {
				return format.IQ3_S, "ffn_down, first eighth"
			}
			return format.Q2_K, "ffn_down, first eighth"
		}
	case attnOutput:
		switch {
		case s.m.Experts == 8:
			return format.Q5_K, "attention output of an 8-expert model"
		case s.is(IQ1_S, IQ1_M):
			return format.IQ2_XXS, "attention output"
		case better:
			return format.IQ3_S, "attention output"
		}
	}
	return 0, ""
}

func (s *mixture) value() (typ format.Type, why string) {
	if typ, why = s.valueByType(); why == "" {
		typ = s.info.Default
	}
	switch {
	case s.m.Experts == 8:
		return format.Q8_0, "attention values of an 8-expert model"
	case s.m.seventyB() && (typ == format.Q3_K || typ == format.Q4_K):
		return format.Q5_K, "attention values of a 70B model, an eighth of the queries' size"
	}
	return typ, why
}

func (s *mixture) valueByType() (format.Type, string) {
	shared := s.gqa >= 4
	const few = "attention values shared by four or more heads"
	switch {
	case s.is(Q2_K):
		if shared {
			return format.Q4_K, few
		}
		return format.Q3_K, "attention values"
	case s.is(Q2_K_S) && shared:
		return format.Q4_K, few
	case s.is(IQ3_XXS):
		switch {
		case shared:
			return format.Q4_K, few
		case !s.r.Imatrix:
			return format.IQ3_S, "attention values, without importance matrix"
		}
		return format.IQ3_XXS, "attention values, with importance matrix"
	case s.is(IQ3_XS, IQ3_S) && shared:
		return format.Q4_K, few
	case s.is(IQ3_M):
		return format.Q4_K, "attention values"
	case s.is(Q3_K_M):
		if s.attnV < 2 {
			return format.Q5_K, "attention values, first two layers"
		}
		return format.Q4_K, "attention values"
	case s.is(Q3_K_L):
		return format.Q5_K, "attention values"
	case s.is(IQ4_NL, IQ4_XS) && shared:
		return format.Q5_K, few
	case s.is(Q4_K_M, Q5_K_M) && moreBits(s.attnV, s.nAttnV):
		return format.Q6_K, "attention values, first and last eighth and every third layer"
	case s.is(Q4_K_S) && s.attnV < 4:
		return format.Q5_K, "attention values, first four layers"
	}
	return 0, ""
}

func (s *mixture) key() (format.Type, string) {
	if s.m.Experts == 8 {
		return format.Q8_0, "attention keys of an 8-expert model"
	}
	return s.query()
}

func (s *mixture) query() (format.Type, string) {
	switch {
	case s.is(IQ3_XS):
		return format.IQ3_XXS, "attention keys and queries bear fewer bits"
	case s.is(IQ3_XXS):
		return format.IQ2_S, "attention keys and queries bear fewer bits"
	}
	return 0, ""
}

func (s *mixture) down(i int) (format.Type, string) {
	n, falcon := s.m.Layers, s.m.Arch == "falcon"
	firstEighth := i < n/8
	const eighth = "ffn_down, first eighth of the layers"
	switch {
	case s.is(Q2_K):
		return format.Q3_K, "ffn_down"
	case s.is(Q2_K_S):
		if firstEighth {
			return format.Q4_K, eighth
		}
	case s.is(IQ3_XXS) && !s.r.Imatrix:
		if firstEighth {
			return format.Q4_K, eighth
		}
		return format.Q3_K, "ffn_down, without importance matrix"
	case s.is(Q3_K_M):
		switch {
		case i < n/16:
			return format.Q5_K, "ffn_down, first sixteenth of the layers"
		case !falcon || moreBits(i, n):
			return format.Q4_K, "ffn_down"
		}
		return format.Q3_K, "ffn_down of falcon"
	case s.is(IQ3_M) && (firstEighth || s.m.Experts == 8 && moreBits(i, n)):
		return format.Q4_K, eighth
	case s.is(Q3_K_L):
		if falcon {
			return format.Q4_K, "ffn_down of falcon"
		}
		return format.Q5_K, "ffn_down"
	case s.is(Q4_K_M) && falcon:
		switch {
		case i < n/16:
			return format.Q6_K, "ffn_down of falcon, first sixteenth"
		case moreBits(i, n):
			return format.Q5_K, "ffn_down of falcon, first and last eighth and every third layer"
		}
	case s.is(Q4_K_M, Q5_K_M) && moreBits(i, n):
		return format.Q6_K, "ffn_down, first and last eighth and every third layer"
	case s.is(IQ4_NL, IQ4_XS) && firstEighth && !s.r.Imatrix:
		return format.Q5_K, eighth + ", without importance matrix"
	case s.is(Q4_K_S) && !falcon && firstEighth:
		return format.Q5_K, eighth
	case s.is(Q4_0, Q5_0) && s.r.Imatrix && firstEighth:
		if s.is(Q4_0) {
			return format.Q4_1, eighth + ", with importance matrix"
		}
		return format.Q5_1, eighth + ", with importance matrix"
	}
	return 0, ""
}

func (s *mixture) attentionOutput() (format.Type, string) {
	const why = "attention output"
	if s.m.Arch == "falcon" {
		if s.is(Q3_K_L) {
			return format.Q4_K, why + " of falcon"
		}
		return 0, ""
	}
	if s.m.Experts == 8 {
		if s.is(Q2_K, IQ3_XS, IQ3_XXS, Q3_K_S, Q3_K_M, IQ4_NL, Q4_K_S, Q4_K_M, IQ3_S, IQ3_M, IQ4_XS) {
			return format.Q5_K, why + " of an 8-expert model"
		}
		return 0, ""
	}
	switch {
	case s.is(Q2_K):
		return format.Q3_K, why
	case s.is(IQ3_XXS):
		return format.IQ3_S, why
	case s.is(Q3_K_M, IQ3_M):
		return format.Q4_K, why
	case s.is(Q3_K_L):
		return format.Q5_K, why
	}
	return 0, ""
}

// gateUp is the rule of ffn_gate and ffn_up; running is the number of the one asked.
func (s *mixture) gateUp(name string, running *int) (format.Type, string, error) {
	i, err := s.layer(name, *running)
	if err != nil {
		return 0, "", err
	}
	*running++
	if n := s.m.Layers; s.is(IQ3_XS) && i >= n/8 && i < 7*n/8 {
		return format.IQ3_XXS, "ffn_gate and ffn_up of the middle layers", nil
	}
	return 0, "", nil
}
