package arch

import (
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// Names of adapters, in the forms that kohya's scripts, diffusers and ComfyUI write, and
// the tensor that each means. at is the row for a part of 10 rows and 16 columns.
func TestDiffusionNames(t *testing.T) {
	t.Parallel()
	const p = "model.diffusion_model."
	models := map[string][]struct {
		adapter, tensor string
		at              int
	}{
		"sdxl": {
			{"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", p + "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight", 0},
			{"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", p + "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight", 0},
			{"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", p + "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight", 0},
			{"lora_unet_down_blocks_2_resnets_1_time_emb_proj", p + "input_blocks.8.0.emb_layers.1.weight", 0},
			{"lora_unet_down_blocks_0_downsamplers_0_conv", p + "input_blocks.3.0.op.weight", 0},
			{"lora_unet_mid_block_resnets_1_conv1", p + "middle_block.2.in_layers.2.weight", 0},
			{"lora_unet_mid_block_attentions_0_proj_in", p + "middle_block.1.proj_in.weight", 0},
			{"lora_unet_up_blocks_0_upsamplers_0_conv", p + "output_blocks.2.2.conv.weight", 0},
			{"lora_unet_up_blocks_2_resnets_2_conv_shortcut", p + "output_blocks.8.0.skip_connection.weight", 0},
			{"lora_unet_time_embedding_linear_2", p + "time_embed.2.weight", 0},
			{"lora_te1_text_model_encoder_layers_0_mlp_fc1", "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight", 0},
			{"text_encoder.text_model.encoder.layers.0.mlp.fc1", "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight", 0},
			{"lora_te2_text_model_encoder_layers_3_self_attn_v_proj", "conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_weight", 20},
			{"lora_te2_text_model_encoder_layers_3_mlp_fc2", "conditioner.embedders.1.model.transformer.resblocks.3.mlp.c_proj.weight", 0},
		},
		"flux": {
			{"lora_unet_double_blocks_7_img_attn_qkv", "double_blocks.7.img_attn.qkv.weight", 0},
			{"transformer.transformer_blocks.7.attn.to_k", "double_blocks.7.img_attn.qkv.weight", 10},
			{"transformer.transformer_blocks.7.attn.add_v_proj", "double_blocks.7.txt_attn.qkv.weight", 20},
			{"transformer.single_transformer_blocks.11.attn.to_q", "single_blocks.11.linear1.weight", 0},
			{"transformer.single_transformer_blocks.11.proj_mlp", "single_blocks.11.linear1.weight", 48},
			{"lora_transformer_single_transformer_blocks_11_proj_out", "single_blocks.11.linear2.weight", 0},
			{"transformer.time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer.weight", 0},
			{"transformer.norm_out.linear", "final_layer.adaLN_modulation.1.weight", 0},
			{"transformer.proj_out", "final_layer.linear.weight", 0},
		},
		"sd3": {
			{"transformer.transformer_blocks.7.attn.to_k", p + "joint_blocks.7.x_block.attn.qkv.weight", 10},
			{"transformer.transformer_blocks.7.attn2.to_v", p + "joint_blocks.7.x_block.attn2.qkv.weight", 20},
			{"transformer.transformer_blocks.7.attn.add_k_proj", p + "joint_blocks.7.context_block.attn.qkv.weight", 10},
			{"lora_unet_transformer_blocks_7_attn2_to_out_0", p + "joint_blocks.7.x_block.attn2.proj.weight", 0},
			{"transformer.transformer_blocks.7.ff_context.net.0.proj", p + "joint_blocks.7.context_block.mlp.fc1.weight", 0},
			{"transformer.transformer_blocks.7.norm1.linear", p + "joint_blocks.7.x_block.adaLN_modulation.1.weight", 0},
			{"transformer.norm_out.linear", p + "final_layer.adaLN_modulation.1.weight", 0},
			{"transformer.proj_out", p + "final_layer.linear.weight", 0},
			{"transformer.time_text_embed.text_embedder.linear_2", p + "y_embedder.mlp.2.weight", 0},
		},
		"wan": {
			{"diffusion_model.blocks.5.self_attn.q", "blocks.5.self_attn.q.weight", 0},
			{"lora_unet_blocks_5_cross_attn_k_img", "blocks.5.cross_attn.k_img.weight", 0},
			{"transformer.blocks.5.attn1.to_out.0", "blocks.5.self_attn.o.weight", 0},
			{"transformer.blocks.5.attn2.add_k_proj", "blocks.5.cross_attn.k_img.weight", 0},
			{"transformer.blocks.5.ffn.net.2", "blocks.5.ffn.2.weight", 0},
			{"transformer.proj_out", "head.head.weight", 0},
			{"transformer.condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1.weight", 0},
		},
		"flux in diffusers' names": {
			{"transformer.transformer_blocks.7.attn.to_k", "transformer_blocks.7.attn.to_k.weight", 0},
			{"lora_unet_double_blocks_7_img_attn_proj", "transformer_blocks.7.attn.to_out.0.weight", 0},
		},
	}
	for name, list := range models {
		seen := map[string]bool{}
		var views []*format.View
		for _, c := range list {
			if !seen[c.tensor] {
				seen[c.tensor] = true
				views = append(views, &format.View{Name: c.tensor})
			}
		}
		m := NewModel(name, &gguf.Meta{}, views)
		for _, c := range list {
			s, ok := m.StoredModule(c.adapter, "")
			if !ok || s.Tensor != c.tensor {
				t.Errorf("%s: %s is %q, want %s", name, c.adapter, s.Tensor, c.tensor)
				continue
			}
			at := 0
			if s.Row != nil {
				at = s.Row(10, 16)
			}
			if at != c.at {
				t.Errorf("%s: %s begins at row %d, want %d", name, c.adapter, at, c.at)
			}
		}
		for _, unknown := range []string{"lora_unet_nothing", "transformer.blocks.99.attn9.to_q", "", "."} {
			if s, ok := m.StoredModule(unknown, ""); ok {
				t.Errorf("%s: %s is %s", name, unknown, s.Tensor)
			}
		}
	}
}

// TestSwappedHalves: shift and scale stand the other way round in diffusers' names, in the
// last layer of FLUX and Stable Diffusion 3 and the latter's last context block; seen from
// a model of either kind.
func TestSwappedHalves(t *testing.T) {
	t.Parallel()
	view := func(name string, rows int64) *format.View {
		return &format.View{Name: name, Shape: []int64{rows, 4}}
	}
	for _, c := range []struct {
		view   *format.View
		module string
		want   bool
	}{
		{view("final_layer.adaLN_modulation.1.weight", 8), "transformer.norm_out.linear", true},
		{view("final_layer.adaLN_modulation.1.weight", 8), "lora_unet_norm_out_linear", true},
		{view("final_layer.adaLN_modulation.1.weight", 8), "lora_unet_final_layer_adaLN_modulation_1", false},
		{view("norm_out.linear.weight", 8), "diffusion_model.final_layer.adaLN_modulation.1", true},
		{view("norm_out.linear.weight", 8), "transformer.norm_out.linear", false},
		{view("joint_blocks.23.context_block.adaLN_modulation.1.weight", 8), "transformer.transformer_blocks.23.norm1_context.linear", true},
		{view("joint_blocks.22.context_block.adaLN_modulation.1.weight", 24), "transformer.transformer_blocks.22.norm1_context.linear", false},
		{view("double_blocks.3.txt_mod.lin.weight", 24), "transformer.transformer_blocks.3.norm1_context.linear", false},
	} {
		bias := &format.View{Name: strings.TrimSuffix(c.view.Name, "weight") + "bias", Shape: c.view.Shape[:1]}
		m := NewModel("", &gguf.Meta{}, []*format.View{c.view, bias})
		for _, suffix := range []string{"", ".bias"} {
			if s, ok := m.StoredModule(c.module, suffix); !ok || s.Swapped != c.want {
				t.Errorf("%s%s: %+v, %v, want %v", c.module, suffix, s, ok, c.want)
			}
		}
	}
}

// A name that two tensors share is no name.
func TestAmbiguousName(t *testing.T) {
	t.Parallel()
	m := NewModel("", &gguf.Meta{}, []*format.View{{Name: "a.b_c.weight"}, {Name: "a.b.c.weight"}, {Name: "d.weight"}, {Name: "d.bias"}})
	if s, ok := m.StoredModule("lora_unet_a_b_c", ""); ok {
		t.Errorf("found %s", s.Tensor)
	}
	if s, ok := m.StoredModule("lora_unet_d", ".bias"); !ok || !strings.HasSuffix(s.Tensor, "d.bias") {
		t.Errorf("the bias of d is %q", s.Tensor)
	}
}
