package safetensors

import "github.com/graft-lora/graft/format"

// dtypes are the dtypes of the format in the order of the reference's enum, which
// is the reverse of the order in which it writes tensors: the widest first.
var dtypes = [...]struct {
	name string
	typ  format.Type
}{
	{"BOOL", format.Bool},
	{"F4", format.F4},
	{"F6_E2M3", format.F6_E2M3},
	{"F6_E3M2", format.F6_E3M2},
	{"U8", format.U8},
	{"I8", format.I8},
	{"F8_E5M2", format.F8_E5M2},
	{"F8_E4M3", format.F8_E4M3},
	{"F8_E8M0", format.F8_E8M0},
	{"F8_E4M3FNUZ", format.F8_E4M3FNUZ},
	{"F8_E5M2FNUZ", format.F8_E5M2FNUZ},
	{"I16", format.I16},
	{"U16", format.U16},
	{"F16", format.F16},
	{"BF16", format.BF16},
	{"I32", format.I32},
	{"U32", format.U32},
	{"F32", format.F32},
	{"C64", format.C64},
	{"F64", format.F64},
	{"I64", format.I64},
	{"U64", format.U64},
}

var (
	typeByName = map[string]format.Type{}
	rankOf     = map[format.Type]int{}
)

func init() {
	for i, d := range dtypes {
		typeByName[d.name] = d.typ
		rankOf[d.typ] = i
	}
}

// DTypeName gives the name that t has in a header; ok is false if files of this
// format cannot hold t.
func DTypeName(t format.Type) (name string, ok bool) {
	i, ok := rankOf[t]
	if !ok {
		return "", false
	}
	return dtypes[i].name, true
}
