package model

import (
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/rng"
)

// randomMat has independent elements, uniform in ±√3·std.
func randomMat(rows, cols int, std float64, names ...string) kernel.Mat {
	x := kernel.NewMat(rows, cols)
	s := rng.New(11, names...)
	for i := range x.Data {
		x.Data[i] = float32(std * math.Sqrt(12) * (s.Float64(uint64(i)) - 0.5))
	}
	return x
}

// memRows is a tensor in memory.
type memRows struct {
	data []float32
	cols int64
}

func (r memRows) Dims() (rows, cols int64) { return int64(len(r.data)) / r.cols, r.cols }

func (r memRows) ReadRows(dst []float32, row int64) error {
	copy(dst, r.data[row*r.cols:])
	return nil
}

// tiny is a random model of an architecture: what is not asked for is small.
type tiny struct {
	arch                               string
	hidden, ff, heads, kv, dim, layers int
	vocab                              int
	bias, headNorm, wholeNorm          bool
	post, noPre, fused, tied           bool
	experts, used, expertFF, sharedFF  int
	keys                               map[string]gguf.Value // of the architecture
	extra                              map[string][]float32  // vectors
}

func (c tiny) model() *arch.Model {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.hidden, 16)
	def(&c.ff, 24)
	def(&c.heads, 4)
	def(&c.kv, 2)
	def(&c.dim, 6)
	def(&c.layers, 2)
	def(&c.vocab, 29)
	meta := &gguf.Meta{}
	meta.Set("general.architecture", c.arch)
	set := func(k string, v gguf.Value) { meta.Set(c.arch+"."+k, v) }
	for k, v := range map[string]int{
		"block_count": c.layers, "embedding_length": c.hidden, "feed_forward_length": c.ff, "attention.head_count": c.heads,
		"attention.head_count_kv": c.kv, "attention.key_length": c.dim, "attention.value_length": c.dim, "context_length": 64,
	} {
		set(k, uint32(v))
	}
	set("attention.layer_norm_rms_epsilon", float32(1e-5))
	if c.experts > 0 {
		set("expert_count", uint32(c.experts))
		set("expert_used_count", uint32(c.used))
		set("expert_feed_forward_length", uint32(c.expertFF))
	}
	for k, v := range c.keys {
		set(k, v)
	}
	var views []*format.View
	add := func(name string, data []float32, shape ...int) {
		v := &format.View{Name: name, Type: format.F32, Rows: memRows{data, int64(shape[len(shape)-1])}}
		for _, n := range shape {
			v.Shape = append(v.Shape, int64(n))
		}
		views = append(views, v)
	}
	matrix := func(name string, shape ...int) {
		rows := 1
		for _, n := range shape[:len(shape)-1] {
			rows *= n
		}
		in := shape[len(shape)-1]
		add(name, randomMat(rows, in, 1.2/math.Sqrt(float64(in)), name).Data, shape...)
	}
	norm := func(name string, n int) {
		x := randomMat(1, n, 0.2, name).Data
		for i := range x {
			x[i]++
		}
		add(name, x, n)
	}
	add("token_embd.weight", randomMat(c.vocab, c.hidden, 1, "embd").Data, c.vocab, c.hidden)
	norm("output_norm.weight", c.hidden)
	if !c.tied {
		matrix("output.weight", c.vocab, c.hidden)
	}
	for i := range c.layers {
		p := fmt.Sprintf("blk.%d.", i)
		if !c.noPre {
			norm(p+"attn_norm.weight", c.hidden)
			norm(p+"ffn_norm.weight", c.hidden)
		}
		if c.post {
			norm(p+"post_attention_norm.weight", c.hidden)
			norm(p+"post_ffw_norm.weight", c.hidden)
		}
		q, kv := c.heads*c.dim, c.kv*c.dim
		if c.fused {
			matrix(p+"attn_qkv.weight", q+2*kv, c.hidden)
		} else {
			for k, n := range map[string]int{"q": q, "k": kv, "v": kv} {
				matrix(p+"attn_"+k+".weight", n, c.hidden)
				if c.bias {
					add(p+"attn_"+k+".bias", randomMat(1, n, 0.3, p, k, "bias").Data, n)
				}
			}
		}
		if c.headNorm {
			norm(p+"attn_q_norm.weight", c.dim)
			norm(p+"attn_k_norm.weight", c.dim)
		}
		if c.wholeNorm {
			norm(p+"attn_q_norm.weight", q)
			norm(p+"attn_k_norm.weight", kv)
		}
		matrix(p+"attn_output.weight", c.hidden, q)
		if c.experts > 0 {
			matrix(p+"ffn_gate_inp.weight", c.experts, c.hidden)
			matrix(p+"ffn_gate_exps.weight", c.experts, c.expertFF, c.hidden)
			matrix(p+"ffn_up_exps.weight", c.experts, c.expertFF, c.hidden)
			matrix(p+"ffn_down_exps.weight", c.experts, c.hidden, c.expertFF)
			if c.sharedFF > 0 {
				add(p+"ffn_gate_inp_shexp.weight", randomMat(1, c.hidden, 0.3, p, "shared").Data, c.hidden)
				matrix(p+"ffn_gate_shexp.weight", c.sharedFF, c.hidden)
				matrix(p+"ffn_up_shexp.weight", c.sharedFF, c.hidden)
				matrix(p+"ffn_down_shexp.weight", c.hidden, c.sharedFF)
			}
			continue
		}
		if c.fused {
			matrix(p+"ffn_up.weight", 2*c.ff, c.hidden)
		} else {
			matrix(p+"ffn_gate.weight", c.ff, c.hidden)
			matrix(p+"ffn_up.weight", c.ff, c.hidden)
		}
		matrix(p+"ffn_down.weight", c.hidden, c.ff)
	}
	for name, x := range c.extra {
		add(name, x, len(x))
	}
	return arch.NewModel("random "+c.arch, meta, views)
}
