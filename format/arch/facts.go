package arch

import (
	"math"

	"github.com/graft-lora/graft/format/gguf"
)

// These methods answer what a forward pass asks, from a folder's configuration
// where it says so and from what the architecture is known to do otherwise.

// AttentionScale is the factor on q·k before the softmax.
func (m *Model) AttentionScale() float64 {
	if s, ok := m.Meta.Float(KeyAttentionScale); ok {
		return s
	}
	if s, ok := m.Meta.Float(m.Arch + ".attention.scale"); ok && s != 0 {
		return s
	}
	layers, _ := m.Meta.Int(m.Arch + ".block_count")
	// The 27B models scale by hidden size / heads, which GGUF does not state.
	if m.Arch == "gemma2" && layers == 46 || m.Arch == "gemma3" && layers == 62 {
		width, _ := m.Meta.Int(m.Arch + ".embedding_length")
		heads, _ := m.Meta.Int(m.Arch + ".attention.head_count")
		if heads > 0 {
			return 1 / math.Sqrt(float64(width/heads))
		}
	}
	return 1 / math.Sqrt(float64(m.HeadDim()))
}

// Layers is the number of layers; no more than there are tensors, whatever the
// metadata say.
func (m *Model) Layers() int {
	n, _ := m.Meta.Int(m.Arch + ".block_count")
	return int(max(0, min(n, int64(len(m.Views)))))
}

// HeadDim is the size of an attention head; 0 if the metadata does not tell.
func (m *Model) HeadDim() int64 {
	if n, ok := m.Meta.Int(m.Arch + ".attention.key_length"); ok {
		return n
	}
	width, _ := m.Meta.Int(m.Arch + ".embedding_length")
	heads, _ := m.Meta.Int(m.Arch + ".attention.head_count")
	if heads <= 0 {
		return 0
	}
	return width / heads
}

// SlidingWindow is the number of positions that a layer with a sliding window sees,
// itself included; 0 if the model has no such layers.
func (m *Model) SlidingWindow() int64 {
	if n, ok := m.Meta.Int(KeySlidingWindow); ok {
		return n
	}
	n, _ := m.Meta.Int(m.Arch + ".attention.sliding_window")
	return n
}

// SlidingLayers says for each layer whether it has a sliding window.
func (m *Model) SlidingLayers() []bool {
	layers := make([]bool, m.Layers())
	if m.SlidingWindow() <= 0 {
		return layers
	}
	for _, key := range []string{KeySlidingLayers, m.Arch + ".attention.sliding_window_pattern"} {
		if v, ok := m.Meta.Get(key); ok {
			if known, ok := v.([]bool); ok {
				copy(layers, known)
				return layers
			}
		}
	}
	period := 0 // every period-th layer sees everything
	switch m.Arch {
	case "gemma2":
		period = 2
	case "gemma3":
		period = 6
	case "llama", "phi3":
		period = math.MaxInt
	}
	for i := range layers {
		layers[i] = period > 0 && (i+1)%period != 0
	}
	return layers
}

// RopeLayers says for each layer whether it has rotary embedding.
func (m *Model) RopeLayers() []bool {
	layers := make([]bool, m.Layers())
	if v, ok := m.Meta.Get(KeyRopeLayers); ok {
		if known, ok := v.([]bool); ok {
			copy(layers, known)
			return layers
		}
	}
	for i := range layers {
		layers[i] = m.Arch != "smollm3" || (i+1)%4 != 0
	}
	return layers
}

// FileMeta is the metadata without graft's own facts: what can be written.
func (m *Model) FileMeta() *gguf.Meta {
	out := m.Meta.Clone()
	for _, key := range []string{KeyAttentionScale, KeySlidingWindow, KeySlidingLayers, KeyRopeLayers, KeyNormTopK, keyClass} {
		out.Delete(key)
	}
	return out
}
