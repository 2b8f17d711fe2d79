package arch

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/graft-lora/graft/format"
)

// storedNames finds tensors of a stored model by flattened module names: without the
// prefix of their part of the checkpoint, with underscores for dots.
type storedNames struct {
	once sync.Once
	flat map[string]storedName
}

// storedName is the tensor of a name, "" where two share it.
type storedName struct {
	tensor string
	swap   bool // see nameRule
}

// parts of a checkpoint: what stands before the names of a module in the file, and what
// the names of adapters begin with for it. Text encoders have their own name space.
var storedParts = []struct {
	prefix string // in the model
	space  string // "" or "te1_", "te2_"
}{
	{"model.diffusion_model.", ""},
	{"diffusion_model.", ""},
	{"conditioner.embedders.0.transformer.", "te1_"},
	{"cond_stage_model.transformer.", "te1_"},
	{"conditioner.embedders.1.model.", "te2_"},
	{"text_encoders.clip_l.transformer.", "te1_"},
	{"text_encoder.", "te1_"},
	{"text_encoder_2.", "te2_"},
	{"unet.", ""},
	{"transformer.", ""},
}

// adapterParts are the beginnings of adapters' names for those parts.
var adapterParts = []struct{ prefix, space string }{
	{"lora_te1_", "te1_"}, {"lora_te2_", "te2_"}, {"lora_te_", "te1_"},
	{"lora_unet_", ""}, {"lora_transformer_", ""}, {"lycoris_", ""},
	{"model_diffusion_model_", ""}, {"diffusion_model_", ""}, {"base_model_model_", ""},
	{"text_encoder_2_", "te2_"}, {"text_encoder_", "te1_"}, {"unet_", ""}, {"transformer_", ""},
}

var flatten = strings.NewReplacer(".", "_")

// candidates are the flattened names that a module of an adapter may have.
func candidates(module string) []string {
	flat := flatten.Replace(module)
	list := []string{flat}
	for _, p := range adapterParts {
		if rest, ok := strings.CutPrefix(flat, p.prefix); ok {
			list = append(list, p.space+rest)
			if p.space != "" {
				list = append(list, rest) // a file that holds the encoder alone
			}
		}
	}
	return list
}

func (s *storedNames) fill(views []*format.View) {
	s.flat = map[string]storedName{}
	put := func(name, tensor string, swap bool) {
		if was, ok := s.flat[name]; ok && was.tensor != tensor {
			tensor = ""
		}
		s.flat[name] = storedName{tensor, swap}
	}
	for _, v := range views {
		module, ok := strings.CutSuffix(v.Name, ".weight")
		if !ok {
			if module, ok = strings.CutSuffix(v.Name, "_weight"); !ok { // in_proj_weight
				continue
			}
		}
		flat := flatten.Replace(module)
		names := []string{flat}
		for _, p := range storedParts {
			if rest, ok := strings.CutPrefix(module, p.prefix); ok {
				names = append(names, p.space+flatten.Replace(rest))
				break
			}
		}
		for _, n := range names {
			put(n, v.Name, false)
			// A model with diffusers' names is found by the original ones, too.
			for _, t := range translations(n) {
				if t.row == nil {
					put(t.name, v.Name, t.swap)
				}
			}
		}
	}
}

// find gives the tensor of a flattened name, and for a part of it where its rows begin.
func (s *storedNames) find(flat string) (n storedName, row func(rows, cols int) int) {
	if n := s.flat[flat]; n.tensor != "" {
		return n, nil
	}
	for _, t := range translations(flat) {
		if n := s.flat[t.name]; n.tensor != "" {
			return storedName{n.tensor, t.swap}, t.row
		}
	}
	return storedName{}, nil
}

// rowsOf places the k-th of several matrices of the same size under each other.
func rowsOf(k int) func(int, int) int { return func(rows, _ int) int { return k * rows } }

// nameRule turns a flattened name of diffusers into the one of the original checkpoint.
type nameRule struct {
	from *regexp.Regexp
	to   func(m []string) string
	row  func(m []string) func(rows, cols int) int
	// swap: the rows are those of a shift and of a scale, and diffusers has them the other
	// way round. It holds for matrices of two times as many rows as columns only: where a
	// block makes more of them (Stable Diffusion 3's, but for the last), both agree.
	swap bool
}

// translation is what the original checkpoint may call a module.
type translation struct {
	name string
	row  func(rows, cols int) int
	swap bool
}

// expand puts the groups of a match into to, "$1" and so on.
func expand(to string) func([]string) string {
	return func(m []string) string {
		out := to
		for i, s := range m {
			out = strings.ReplaceAll(out, "$"+strconv.Itoa(i), s)
		}
		return out
	}
}

func plainRule(from, to string) nameRule {
	return nameRule{from: regexp.MustCompile("^" + from + "$"), to: expand(to)}
}

var qkv = map[string]int{"q": 0, "k": 1, "v": 2}

func fusedRule(from, to string, group int) nameRule {
	r := plainRule(from, to)
	r.row = func(m []string) func(int, int) int { return rowsOf(qkv[m[group]]) }
	return r
}

// unet numbers the blocks of Stable Diffusion's U-Net as the original does: three a level,
// the first of the inputs being the convolution in front.
func unet(from string, number func(i, j int) int, place string) nameRule {
	return nameRule{from: regexp.MustCompile("^" + from + "$"), to: func(m []string) string {
		i, _ := strconv.Atoi(m[1])
		j, _ := strconv.Atoi(m[2])
		side := "input_blocks"
		if strings.HasPrefix(from, "up") {
			side = "output_blocks"
		}
		return fmt.Sprintf("%s_%d_%s%s", side, number(i, j), place, resnet(m[3]))
	}}
}

// upsampler has a place of its own in its level's last block.
func upsampler(place int) nameRule {
	return nameRule{from: regexp.MustCompile(`^up_blocks_(\d+)_upsamplers_0_conv$`), to: func(m []string) string {
		i, _ := strconv.Atoi(m[1])
		return fmt.Sprintf("output_blocks_%d_%d_conv", 3*i+2, place)
	}}
}

func swappedRule(from, to string) nameRule {
	r := plainRule(from, to)
	r.swap = true
	return r
}

// resnet translates the parts of a residual block; other names stay.
func resnet(s string) string {
	for from, to := range map[string]string{
		"norm1": "in_layers_0", "conv1": "in_layers_2", "norm2": "out_layers_0", "conv2": "out_layers_3",
		"time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection",
	} {
		if s == from {
			return to
		}
	}
	return s
}

// nameRules are those of U-Nets (Stable Diffusion 1, 2, XL), OpenCLIP's text encoder of
// SDXL, FLUX, Stable Diffusion 3 and Wan, as diffusers' conversion scripts have them. A
// name may have several: that model's holds which has the tensor.
var nameRules = []nameRule{
	unet(`down_blocks_(\d+)_resnets_(\d+)_(\w+)`, func(i, j int) int { return 3*i + j + 1 }, "0_"),
	unet(`down_blocks_(\d+)_attentions_(\d+)_(\w+)`, func(i, j int) int { return 3*i + j + 1 }, "1_"),
	{from: regexp.MustCompile(`^down_blocks_(\d+)_downsamplers_0_conv$`), to: func(m []string) string {
		i, _ := strconv.Atoi(m[1])
		return fmt.Sprintf("input_blocks_%d_0_op", 3*(i+1))
	}},
	unet(`up_blocks_(\d+)_resnets_(\d+)_(\w+)`, func(i, j int) int { return 3*i + j }, "0_"),
	unet(`up_blocks_(\d+)_attentions_(\d+)_(\w+)`, func(i, j int) int { return 3*i + j }, "1_"),
	upsampler(1), upsampler(2), // behind a residual block alone, or behind one and attention
	{from: regexp.MustCompile(`^mid_block_resnets_([01])_(\w+)$`), to: func(m []string) string {
		i, _ := strconv.Atoi(m[1])
		return fmt.Sprintf("middle_block_%d_%s", 2*i, resnet(m[2]))
	}},
	plainRule(`mid_block_attentions_0_(\w+)`, "middle_block_1_$1"),
	plainRule("time_embedding_linear_1", "time_embed_0"),
	plainRule("time_embedding_linear_2", "time_embed_2"),
	plainRule("add_embedding_linear_1", "label_emb_0_0"),
	plainRule("add_embedding_linear_2", "label_emb_0_2"),
	plainRule("conv_in", "input_blocks_0_0"),
	plainRule("conv_norm_out", "out_0"),
	plainRule("conv_out", "out_2"),

	fusedRule(`te2_text_model_encoder_layers_(\d+)_self_attn_([qkv])_proj`, "te2_transformer_resblocks_$1_attn_in_proj", 2),
	plainRule(`te2_text_model_encoder_layers_(\d+)_self_attn_out_proj`, "te2_transformer_resblocks_$1_attn_out_proj"),
	plainRule(`te2_text_model_encoder_layers_(\d+)_mlp_fc1`, "te2_transformer_resblocks_$1_mlp_c_fc"),
	plainRule(`te2_text_model_encoder_layers_(\d+)_mlp_fc2`, "te2_transformer_resblocks_$1_mlp_c_proj"),
	plainRule(`te2_text_model_encoder_layers_(\d+)_layer_norm([12])`, "te2_transformer_resblocks_$1_ln_$2"),

	fusedRule(`transformer_blocks_(\d+)_attn_to_([qkv])`, "double_blocks_$1_img_attn_qkv", 2),
	fusedRule(`transformer_blocks_(\d+)_attn_add_([qkv])_proj`, "double_blocks_$1_txt_attn_qkv", 2),
	plainRule(`transformer_blocks_(\d+)_attn_to_out_0`, "double_blocks_$1_img_attn_proj"),
	plainRule(`transformer_blocks_(\d+)_attn_to_add_out`, "double_blocks_$1_txt_attn_proj"),
	plainRule(`transformer_blocks_(\d+)_ff_net_0_proj`, "double_blocks_$1_img_mlp_0"),
	plainRule(`transformer_blocks_(\d+)_ff_net_2`, "double_blocks_$1_img_mlp_2"),
	plainRule(`transformer_blocks_(\d+)_ff_context_net_0_proj`, "double_blocks_$1_txt_mlp_0"),
	plainRule(`transformer_blocks_(\d+)_ff_context_net_2`, "double_blocks_$1_txt_mlp_2"),
	plainRule(`transformer_blocks_(\d+)_norm1_linear`, "double_blocks_$1_img_mod_lin"),
	plainRule(`transformer_blocks_(\d+)_norm1_context_linear`, "double_blocks_$1_txt_mod_lin"),
	fusedRule(`single_transformer_blocks_(\d+)_attn_to_([qkv])`, "single_blocks_$1_linear1", 2),
	{from: regexp.MustCompile(`^single_transformer_blocks_(\d+)_proj_mlp$`), to: expand("single_blocks_$1_linear1"),
		row: func([]string) func(int, int) int { return func(_, cols int) int { return 3 * cols } }},
	plainRule(`single_transformer_blocks_(\d+)_proj_out`, "single_blocks_$1_linear2"),
	plainRule(`single_transformer_blocks_(\d+)_norm_linear`, "single_blocks_$1_modulation_lin"),
	plainRule("x_embedder", "img_in"),
	plainRule("context_embedder", "txt_in"),
	plainRule("time_text_embed_timestep_embedder_linear_1", "time_in_in_layer"),
	plainRule("time_text_embed_timestep_embedder_linear_2", "time_in_out_layer"),
	plainRule("time_text_embed_guidance_embedder_linear_1", "guidance_in_in_layer"),
	plainRule("time_text_embed_guidance_embedder_linear_2", "guidance_in_out_layer"),
	plainRule("time_text_embed_text_embedder_linear_1", "vector_in_in_layer"),
	plainRule("time_text_embed_text_embedder_linear_2", "vector_in_out_layer"),
	swappedRule("norm_out_linear", "final_layer_adaLN_modulation_1"),
	plainRule("proj_out", "final_layer_linear"),

	fusedRule(`transformer_blocks_(\d+)_attn_to_([qkv])`, "joint_blocks_$1_x_block_attn_qkv", 2),
	fusedRule(`transformer_blocks_(\d+)_attn2_to_([qkv])`, "joint_blocks_$1_x_block_attn2_qkv", 2),
	fusedRule(`transformer_blocks_(\d+)_attn_add_([qkv])_proj`, "joint_blocks_$1_context_block_attn_qkv", 2),
	plainRule(`transformer_blocks_(\d+)_attn(2?)_to_out_0`, "joint_blocks_$1_x_block_attn$2_proj"),
	plainRule(`transformer_blocks_(\d+)_attn_to_add_out`, "joint_blocks_$1_context_block_attn_proj"),
	plainRule(`transformer_blocks_(\d+)_ff_net_0_proj`, "joint_blocks_$1_x_block_mlp_fc1"),
	plainRule(`transformer_blocks_(\d+)_ff_net_2`, "joint_blocks_$1_x_block_mlp_fc2"),
	plainRule(`transformer_blocks_(\d+)_ff_context_net_0_proj`, "joint_blocks_$1_context_block_mlp_fc1"),
	plainRule(`transformer_blocks_(\d+)_ff_context_net_2`, "joint_blocks_$1_context_block_mlp_fc2"),
	plainRule(`transformer_blocks_(\d+)_norm1_linear`, "joint_blocks_$1_x_block_adaLN_modulation_1"),
	swappedRule(`transformer_blocks_(\d+)_norm1_context_linear`, "joint_blocks_$1_context_block_adaLN_modulation_1"),
	plainRule("pos_embed_proj", "x_embedder_proj"),
	plainRule("time_text_embed_timestep_embedder_linear_1", "t_embedder_mlp_0"),
	plainRule("time_text_embed_timestep_embedder_linear_2", "t_embedder_mlp_2"),
	plainRule("time_text_embed_text_embedder_linear_1", "y_embedder_mlp_0"),
	plainRule("time_text_embed_text_embedder_linear_2", "y_embedder_mlp_2"),

	plainRule(`blocks_(\d+)_attn1_to_([qkv])`, "blocks_$1_self_attn_$2"),
	plainRule(`blocks_(\d+)_attn1_to_out_0`, "blocks_$1_self_attn_o"),
	plainRule(`blocks_(\d+)_attn1_norm_([qk])`, "blocks_$1_self_attn_norm_$2"),
	plainRule(`blocks_(\d+)_attn2_to_([qkv])`, "blocks_$1_cross_attn_$2"),
	plainRule(`blocks_(\d+)_attn2_to_out_0`, "blocks_$1_cross_attn_o"),
	plainRule(`blocks_(\d+)_attn2_norm_([qk])`, "blocks_$1_cross_attn_norm_$2"),
	plainRule(`blocks_(\d+)_attn2_add_([kv])_proj`, "blocks_$1_cross_attn_$2_img"),
	plainRule(`blocks_(\d+)_ffn_net_0_proj`, "blocks_$1_ffn_0"),
	plainRule(`blocks_(\d+)_ffn_net_2`, "blocks_$1_ffn_2"),
	plainRule(`blocks_(\d+)_norm2`, "blocks_$1_norm3"),
	plainRule("condition_embedder_text_embedder_linear_1", "text_embedding_0"),
	plainRule("condition_embedder_text_embedder_linear_2", "text_embedding_2"),
	plainRule("condition_embedder_time_embedder_linear_1", "time_embedding_0"),
	plainRule("condition_embedder_time_embedder_linear_2", "time_embedding_2"),
	plainRule("condition_embedder_time_proj", "time_projection_1"),
	plainRule("condition_embedder_image_embedder_norm1", "img_emb_proj_0"),
	plainRule("condition_embedder_image_embedder_ff_net_0_proj", "img_emb_proj_1"),
	plainRule("condition_embedder_image_embedder_ff_net_2", "img_emb_proj_3"),
	plainRule("condition_embedder_image_embedder_norm2", "img_emb_proj_4"),
	plainRule("proj_out", "head_head"),
}

// translations are the original's names for one of diffusers'.
func translations(flat string) (out []translation) {
	for i := range nameRules {
		r := &nameRules[i]
		m := r.from.FindStringSubmatch(flat)
		if m == nil {
			continue
		}
		t := translation{name: r.to(m), swap: r.swap}
		if r.row != nil {
			t.row = r.row(m)
		}
		out = append(out, t)
	}
	return out
}
