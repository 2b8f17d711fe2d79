package convert

import (
	"fmt"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// fileTypes are the types a conversion can write, with their general.file_type.
var fileTypes = map[string]struct {
	typ   format.Type
	ftype uint32
}{
	"f32": {format.F32, arch.FileTypeF32}, "f16": {format.F16, arch.FileTypeF16},
	"bf16": {format.BF16, arch.FileTypeBF16}, "q8_0": {format.Q8_0, arch.FileTypeQ8_0},
}

// ToGGUF plans a GGUF file of m with tensors of type typ: "f32", "f16", "bf16",
// "q8_0" or "auto" (bf16 or f16, as the first 16-bit matrix is, else f16). The
// metadata may be changed before it is written.
//
// Vectors, norms, routers and whatever is no weight become float32; a matrix whose
// rows q8_0 cannot divide becomes f16. Other types are the work of package quant's
// recipes.
func ToGGUF(m *arch.Model, typ string) (*gguf.Meta, *format.Plan, error) {
	if typ == "" || typ == "auto" {
		typ = autoType(m)
	}
	ft, ok := fileTypes[strings.ToLower(typ)]
	if !ok {
		return nil, nil, format.Usagef("a conversion writes f32, f16, bf16, q8_0 or auto, not %q", typ)
	}
	meta := m.FileMeta()
	meta.Set("general.file_type", ft.ftype)
	plan := &format.Plan{}
	for _, v := range m.Views {
		t, why := tensorType(v, ft.typ)
		o, err := format.NewOutput(v.Name, t, v.Shape, v.Rows, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		o.Why = joinWhy(why, v.Why)
		plan.Outputs = append(plan.Outputs, o)
	}
	return meta, plan, nil
}

func joinWhy(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "; ")
}

// autoType is the type of the first matrix that has 16 bits.
func autoType(m *arch.Model) string {
	for _, v := range m.Views {
		if len(v.Shape) < 2 {
			continue
		}
		switch v.Type {
		case format.BF16:
			return "bf16"
		case format.F16:
			return "f16"
		}
	}
	return "f16"
}

// tensorType is the converter's rule for one tensor.
func tensorType(v *format.View, typ format.Type) (format.Type, string) {
	switch {
	case len(v.Shape) <= 1:
		return format.F32, "vectors stay f32"
	case alwaysF32(v.Name):
		return format.F32, "norms, routers and what is no weight stay f32"
	}
	if _, err := typ.RowBytes(v.Shape[len(v.Shape)-1]); err != nil {
		return format.F16, fmt.Sprintf("rows of %d do not divide into blocks of %v", v.Shape[len(v.Shape)-1], typ)
	}
	return typ, "type of the file"
}

func alwaysF32(name string) bool {
	return strings.HasSuffix(name, "_norm.weight") || strings.HasSuffix(name, ".ffn_gate_inp.weight") ||
		strings.HasSuffix(name, ".ffn_gate_inp_shexp.weight") || !strings.HasSuffix(name, ".weight")
}
