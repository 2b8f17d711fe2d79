package convert

import (
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

// FloatTypes gives the type that each tensor of m has in the 16-bit GGUF file that a
// conversion with type "auto" writes: what quantizing a folder in one pass goes by,
// so that it ends in the same file as conversion and quantization do.
func FloatTypes(m *arch.Model) func(v *format.View) format.Type {
	typ := fileTypes[autoType(m)].typ
	return func(v *format.View) format.Type {
		t, _ := tensorType(v, typ)
		return t
	}
}
