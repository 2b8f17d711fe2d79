package diffusion

import "fmt"

// SDXL are the tensors of the U-Net of Stable Diffusion XL, as a whole checkpoint calls
// them. Its width is 320.
func SDXL(width int64) []Tensor {
	const p = "model.diffusion_model."
	u := &unet{width: width, time: 4 * width}
	l := &u.list
	l.linear(p+"time_embed.0", "time_embedding.linear_1", u.time, width)
	l.linear(p+"time_embed.2", "time_embedding.linear_2", u.time, u.time)
	l.linear(p+"label_emb.0.0", "add_embedding.linear_1", u.time, 2816*width/320)
	l.linear(p+"label_emb.0.2", "add_embedding.linear_2", u.time, u.time)
	l.conv(p+"input_blocks.0.0", "conv_in", width, 4, 3)

	skips := []int64{width} // the channels that each input block hands over
	at := width
	for level, factor := range []int64{1, 2, 4} {
		out := factor * width
		for j := range 2 {
			b, d := fmt.Sprintf(p+"input_blocks.%d.", 3*level+j+1), fmt.Sprintf("down_blocks.%d.", level)
			u.residual(b+"0.", fmt.Sprintf("%sresnets.%d.", d, j), at, out)
			u.attention(b+"1.", fmt.Sprintf("%sattentions.%d.", d, j), out, depths[level])
			at = out
			skips = append(skips, at)
		}
		if level < 2 {
			l.conv(fmt.Sprintf(p+"input_blocks.%d.0.op", 3*level+3), fmt.Sprintf("down_blocks.%d.downsamplers.0.conv", level), at, at, 3)
			skips = append(skips, at)
		}
	}
	u.residual(p+"middle_block.0.", "mid_block.resnets.0.", at, at)
	u.attention(p+"middle_block.1.", "mid_block.attentions.0.", at, depths[2])
	u.residual(p+"middle_block.2.", "mid_block.resnets.1.", at, at)
	for k, factor := range []int64{4, 2, 1} {
		out := factor * width
		for j := range 3 {
			b, d := fmt.Sprintf(p+"output_blocks.%d.", 3*k+j), fmt.Sprintf("up_blocks.%d.", k)
			skip := skips[len(skips)-1]
			skips = skips[:len(skips)-1]
			u.residual(b+"0.", fmt.Sprintf("%sresnets.%d.", d, j), at+skip, out)
			u.attention(b+"1.", fmt.Sprintf("%sattentions.%d.", d, j), out, depths[2-k])
			at = out
			if j == 2 && k < 2 {
				l.conv(b+"2.conv", d+"upsamplers.0.conv", at, at, 3)
			}
		}
	}
	l.norm(p+"out.0", width)
	l.conv(p+"out.2", "conv_out", 4, width, 3)
	return l.tensors
}

// depths are the numbers of transformer blocks in the attention of each level.
var depths = []int{0, 2, 10}

type unet struct {
	list
	width, time int64
}

// residual is a block of two convolutions.
func (u *unet) residual(b, d string, in, out int64) {
	u.norm(b+"in_layers.0", in)
	u.conv(b+"in_layers.2", d+"conv1", out, in, 3)
	u.linear(b+"emb_layers.1", d+"time_emb_proj", out, u.time)
	u.norm(b+"out_layers.0", out)
	u.conv(b+"out_layers.3", d+"conv2", out, out, 3)
	if in != out {
		u.conv(b+"skip_connection", d+"conv_shortcut", out, in, 1)
	}
}

// attention is a transformer of that many blocks, which sees the text.
func (u *unet) attention(b, d string, n int64, depth int) {
	if depth == 0 {
		return
	}
	text := 2048 * u.width / 320
	u.norm(b+"norm", n)
	u.linear(b+"proj_in", d+"proj_in", n, n)
	for i := range depth {
		t := fmt.Sprintf("transformer_blocks.%d.", i)
		for _, a := range []struct {
			name string
			from int64
		}{{"attn1.", n}, {"attn2.", text}} {
			u.add(b+t+a.name+"to_q.weight", d+t+a.name+"to_q", n, n)
			u.add(b+t+a.name+"to_k.weight", d+t+a.name+"to_k", n, a.from)
			u.add(b+t+a.name+"to_v.weight", d+t+a.name+"to_v", n, a.from)
			u.linear(b+t+a.name+"to_out.0", d+t+a.name+"to_out.0", n, n)
		}
		u.linear(b+t+"ff.net.0.proj", d+t+"ff.net.0.proj", 8*n, n)
		u.linear(b+t+"ff.net.2", d+t+"ff.net.2", n, 4*n)
		for _, k := range []string{"norm1", "norm2", "norm3"} {
			u.norm(b+t+k, n)
		}
	}
	u.linear(b+"proj_out", d+"proj_out", n, n)
}
