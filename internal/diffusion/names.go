// Package diffusion has the names and shapes of the tensors of large diffusion
// checkpoints, at any width, for tests and measurements. No weights come with it.
package diffusion

import (
	"fmt"
	"strings"
)

// Tensor is a tensor of a checkpoint.
type Tensor struct {
	Name  string // of the original checkpoint
	Shape []int64
	// Modules are diffusers' names of the module that has it as its weight: one, or the
	// parts that its rows are of; none where diffusers has no module for it, or the tensor is
	// a bias or a norm.
	Modules []string
}

// list collects tensors.
type list struct{ tensors []Tensor }

func (l *list) add(name string, modules string, shape ...int64) {
	l.tensors = append(l.tensors, Tensor{name, shape, strings.Fields(modules)})
}

// linear is a matrix of out x in with its bias.
func (l *list) linear(name, modules string, out, in int64) {
	l.add(name+".weight", modules, out, in)
	l.add(name+".bias", "", out)
}

func (l *list) conv(name, modules string, out, in, kernel int64) {
	l.add(name+".weight", modules, out, in, kernel, kernel)
	l.add(name+".bias", "", out)
}

func (l *list) norm(name string, n int64) {
	l.add(name+".weight", "", n)
	l.add(name+".bias", "", n)
}

// under puts a prefix before each of some words.
func under(prefix string, words ...string) string {
	return prefix + strings.Join(words, " "+prefix)
}

// FLUX are the tensors of FLUX.1 dev: 19 double and 38 single blocks. Its width is 3072,
// heads are of 128.
func FLUX(width int64) []Tensor {
	l, head := &list{}, min(width, 128)
	in := func(name, module string, from int64) {
		l.linear(name+".in_layer", module+".linear_1", width, from)
		l.linear(name+".out_layer", module+".linear_2", width, width)
	}
	l.linear("img_in", "x_embedder", width, 64)
	in("time_in", "time_text_embed.timestep_embedder", 256)
	in("vector_in", "time_text_embed.text_embedder", 768)
	in("guidance_in", "time_text_embed.guidance_embedder", 256)
	l.linear("txt_in", "context_embedder", width, 4096*width/3072)
	for i := range 19 {
		b, d := fmt.Sprintf("double_blocks.%d.", i), fmt.Sprintf("transformer_blocks.%d.", i)
		for _, s := range []struct{ name, norm, qkv, out, mlp string }{
			{"img", "norm1.linear", under(d+"attn.", "to_q", "to_k", "to_v"), "attn.to_out.0", "ff"},
			{"txt", "norm1_context.linear", under(d+"attn.", "add_q_proj", "add_k_proj", "add_v_proj"), "attn.to_add_out", "ff_context"},
		} {
			l.linear(b+s.name+"_mod.lin", d+s.norm, 6*width, width)
			l.linear(b+s.name+"_attn.qkv", s.qkv, 3*width, width)
			l.add(b+s.name+"_attn.norm.query_norm.scale", "", head)
			l.add(b+s.name+"_attn.norm.key_norm.scale", "", head)
			l.linear(b+s.name+"_attn.proj", d+s.out, width, width)
			l.linear(b+s.name+"_mlp.0", d+s.mlp+".net.0.proj", 4*width, width)
			l.linear(b+s.name+"_mlp.2", d+s.mlp+".net.2", width, 4*width)
		}
	}
	for i := range 38 {
		b, d := fmt.Sprintf("single_blocks.%d.", i), fmt.Sprintf("single_transformer_blocks.%d.", i)
		l.linear(b+"linear1", under(d, "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), 7*width, width)
		l.linear(b+"linear2", d+"proj_out", width, 5*width)
		l.add(b+"norm.query_norm.scale", "", head)
		l.add(b+"norm.key_norm.scale", "", head)
		l.linear(b+"modulation.lin", d+"norm.linear", 3*width, width)
	}
	l.linear("final_layer.linear", "proj_out", 64, width)
	l.linear("final_layer.adaLN_modulation.1", "norm_out.linear", 2*width, width)
	return l.tensors
}

// Wan are the tensors of Wan 2.1, image to video: 40 blocks. Its width is 5120.
func Wan(width int64) []Tensor {
	l, inner := &list{}, width*27/10
	l.add("patch_embedding.weight", "patch_embedding", width, 36, 1, 2, 2)
	l.add("patch_embedding.bias", "", width)
	l.linear("text_embedding.0", "condition_embedder.text_embedder.linear_1", width, width*4/5)
	l.linear("text_embedding.2", "condition_embedder.text_embedder.linear_2", width, width)
	l.linear("time_embedding.0", "condition_embedder.time_embedder.linear_1", width, 256)
	l.linear("time_embedding.2", "condition_embedder.time_embedder.linear_2", width, width)
	l.linear("time_projection.1", "condition_embedder.time_proj", 6*width, width)
	l.norm("img_emb.proj.0", width/4)
	l.linear("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj", width/4, width/4)
	l.linear("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2", width, width/4)
	l.norm("img_emb.proj.4", width)
	for i := range 40 {
		b := fmt.Sprintf("blocks.%d.", i)
		for _, s := range []struct{ name, module string }{{"self_attn.", "attn1."}, {"cross_attn.", "attn2."}} {
			for _, m := range []struct{ name, module string }{{"q", "to_q"}, {"k", "to_k"}, {"v", "to_v"}, {"o", "to_out.0"}} {
				l.linear(b+s.name+m.name, b+s.module+m.module, width, width)
			}
			l.add(b+s.name+"norm_q.weight", "", width)
			l.add(b+s.name+"norm_k.weight", "", width)
		}
		l.linear(b+"cross_attn.k_img", b+"attn2.add_k_proj", width, width)
		l.linear(b+"cross_attn.v_img", b+"attn2.add_v_proj", width, width)
		l.add(b+"cross_attn.norm_k_img.weight", "", width)
		l.linear(b+"ffn.0", b+"ffn.net.0.proj", inner, width)
		l.linear(b+"ffn.2", b+"ffn.net.2", width, inner)
		l.norm(b+"norm3", width)
		l.add(b+"modulation", "", 1, 6, width)
	}
	l.linear("head.head", "proj_out", 64, width)
	l.add("head.modulation", "", 1, 2, width)
	return l.tensors
}
