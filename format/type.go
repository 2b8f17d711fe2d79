package format

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Type is how the elements of a tensor are encoded. Types of ggml have ggml's
// ids, so that the value can be read from and written to GGUF as it is. Types
// that exist only in safetensors files start at 1000, and those that stand for a
// group of tensors (bitsandbytes) at 2000; neither can be written to GGUF.
type Type uint32

// The types of ggml (GGML_TYPE_*), by id.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9 // activations only, never in files
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15 // activations only, never in files
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
	Q2_0    Type = 42
)

// Types of safetensors that ggml does not have.
const (
	Bool Type = 1000 + iota
	U8
	U16
	U32
	U64
	C64
	F4
	F6_E2M3
	F6_E3M2
	F8_E5M2
	F8_E4M3
	F8_E8M0
	F8_E4M3FNUZ
	F8_E5M2FNUZ
)

// Types that a matrix can be held in as bitsandbytes does: codes and scales in
// separate tensors of a safetensors file, or in memory.
const (
	NF4 Type = 2000 + iota
	FP4
	INT8
)

// TypeInfo describes a type. This table is the only place with block sizes.
type TypeInfo struct {
	Name  string // as the format spells it: "q4_K", "f16", "F8_E4M3"
	Block int    // elements in a block
	Bits  int    // bits of a block
}

var typeTable = map[Type]TypeInfo{
	F32: {"f32", 1, 32}, F16: {"f16", 1, 16}, BF16: {"bf16", 1, 16}, F64: {"f64", 1, 64},
	I8: {"i8", 1, 8}, I16: {"i16", 1, 16}, I32: {"i32", 1, 32}, I64: {"i64", 1, 64},
	Q4_0: {"q4_0", 32, 18 * 8}, Q4_1: {"q4_1", 32, 20 * 8},
	Q5_0: {"q5_0", 32, 22 * 8}, Q5_1: {"q5_1", 32, 24 * 8},
	Q8_0: {"q8_0", 32, 34 * 8}, Q8_1: {"q8_1", 32, 36 * 8},
	Q2_K: {"q2_K", 256, 84 * 8}, Q3_K: {"q3_K", 256, 110 * 8}, Q4_K: {"q4_K", 256, 144 * 8},
	Q5_K: {"q5_K", 256, 176 * 8}, Q6_K: {"q6_K", 256, 210 * 8}, Q8_K: {"q8_K", 256, 292 * 8},
	IQ2_XXS: {"iq2_xxs", 256, 66 * 8}, IQ2_XS: {"iq2_xs", 256, 74 * 8}, IQ2_S: {"iq2_s", 256, 82 * 8},
	IQ3_XXS: {"iq3_xxs", 256, 98 * 8}, IQ3_S: {"iq3_s", 256, 110 * 8},
	IQ1_S: {"iq1_s", 256, 50 * 8}, IQ1_M: {"iq1_m", 256, 56 * 8},
	IQ4_NL: {"iq4_nl", 32, 18 * 8}, IQ4_XS: {"iq4_xs", 256, 136 * 8},
	TQ1_0: {"tq1_0", 256, 54 * 8}, TQ2_0: {"tq2_0", 256, 66 * 8},
	MXFP4: {"mxfp4", 32, 17 * 8}, NVFP4: {"nvfp4", 64, 36 * 8},
	Q1_0: {"q1_0", 128, 18 * 8}, Q2_0: {"q2_0", 64, 18 * 8},

	Bool: {"BOOL", 1, 8}, U8: {"U8", 1, 8}, U16: {"U16", 1, 16}, U32: {"U32", 1, 32}, U64: {"U64", 1, 64},
	C64: {"C64", 1, 64}, F4: {"F4", 1, 4}, F6_E2M3: {"F6_E2M3", 1, 6}, F6_E3M2: {"F6_E3M2", 1, 6},
	F8_E5M2: {"F8_E5M2", 1, 8}, F8_E4M3: {"F8_E4M3", 1, 8}, F8_E8M0: {"F8_E8M0", 1, 8},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 1, 8}, F8_E5M2FNUZ: {"F8_E5M2FNUZ", 1, 8},

	NF4: {"nf4", 2, 8}, FP4: {"fp4", 2, 8}, INT8: {"int8", 1, 8},
}

// foreignTypes names ids found in files of forks and of older ggml versions.
var foreignTypes = map[Type]string{
	4: "q4_2 (removed from ggml)", 5: "q4_3 (removed from ggml)",
	31: "q4_0_4_4 (removed from ggml)", 32: "q4_0_4_8 (removed from ggml)", 33: "q4_0_8_8 (removed from ggml)",
	36: "iq4_nl_4_4 (removed from ggml) or i2_s (ik_llama.cpp)", 37: "iq4_nl_4_8 (removed from ggml)", 38: "iq4_nl_8_8 (removed from ggml)",
	133: "q6_0 (ik_llama.cpp)", 134: "iq1_bn (ik_llama.cpp)", 135: "iq2_bn (ik_llama.cpp)",
	137: "iq2_k (ik_llama.cpp)", 138: "iq3_k (ik_llama.cpp)", 139: "iq4_k (ik_llama.cpp)", 140: "iq5_k (ik_llama.cpp)", 141: "iq6_k (ik_llama.cpp)",
	144: "iq4_ks (ik_llama.cpp)", 145: "iq2_ks (ik_llama.cpp)", 146: "iq4_kss (ik_llama.cpp)",
	151: "q8_KV (ik_llama.cpp)", 152: "iq5_ks (ik_llama.cpp)", 153: "iq2_kt (ik_llama.cpp)", 154: "iq3_kt (ik_llama.cpp)", 155: "iq4_kt (ik_llama.cpp)",
	156: "iq3_ks (ik_llama.cpp)", 157: "iq2_kl (ik_llama.cpp)", 158: "iq1_kt (ik_llama.cpp)",
}

// ForeignTypeName names a type id that graft knows of but does not read (a
// removed type, a fork's type); ok is false for ids nobody is known to use.
func ForeignTypeName(id uint32) (name string, ok bool) {
	if id >= 202 && id <= 399 {
		return "a row-interleaved type (ik_llama.cpp)", true
	}
	name, ok = foreignTypes[Type(id)]
	return name, ok
}

// Info returns the description of t; ok is false for an id that is no type.
func (t Type) Info() (info TypeInfo, ok bool) {
	info, ok = typeTable[t]
	return info, ok
}

// String returns the name of t as its format spells it.
func (t Type) String() string {
	if info, ok := typeTable[t]; ok {
		return info.Name
	}
	return "type " + strconv.FormatUint(uint64(t), 10)
}

// BlockSize is the number of elements in a block of t (1 for plain types).
// It panics if t is no type.
func (t Type) BlockSize() int { return t.must().Block }

// BlockBytes is the number of bytes of a block of t. It panics if t is no type
// or its blocks are not whole bytes (F4, F6).
func (t Type) BlockBytes() int {
	info := t.must()
	if info.Bits%8 != 0 {
		panic("format: blocks of " + info.Name + " are not whole bytes")
	}
	return info.Bits / 8
}

// BitsPerWeight is the storage cost of one element, in bits.
func (t Type) BitsPerWeight() float64 {
	info := t.must()
	return float64(info.Bits) / float64(info.Block)
}

// GGML says whether t is one of ggml's types, and so can stand in a GGUF file.
func (t Type) GGML() bool { return t < 1000 && t != Q8_1 && t != Q8_K && typeTable[t].Block != 0 }

// Quantized says whether t stores blocks of codes under shared scales.
func (t Type) Quantized() bool { return t.must().Block > 1 || t == INT8 }

func (t Type) must() TypeInfo {
	info, ok := typeTable[t]
	if !ok {
		panic("format: not a type: " + strconv.FormatUint(uint64(t), 10))
	}
	return info
}

// RowBytes is the number of bytes of n consecutive elements. It is an error if n
// is negative, not a multiple of the block, or if the size is not whole bytes or
// overflows.
func (t Type) RowBytes(n int64) (int64, error) {
	info, ok := typeTable[t]
	if !ok {
		return 0, fmt.Errorf("no type has id %d", uint32(t))
	}
	if n < 0 {
		return 0, fmt.Errorf("negative element count %d", n)
	}
	if n%int64(info.Block) != 0 {
		return 0, fmt.Errorf("%d elements are not whole blocks of %s (%d elements a block)", n, info.Name, info.Block)
	}
	blocks := n / int64(info.Block)
	if blocks != 0 && int64(info.Bits) > math.MaxInt64/blocks {
		return 0, fmt.Errorf("%d elements of %s overflow the size", n, info.Name)
	}
	bits := blocks * int64(info.Bits)
	if bits%8 != 0 {
		return 0, fmt.Errorf("%d elements of %s are not whole bytes", n, info.Name)
	}
	return bits / 8, nil
}

// ParseType finds a type by its name in any case ("Q4_K", "q4_k", "bf16").
func ParseType(name string) (Type, error) {
	for t, info := range typeTable {
		if strings.EqualFold(info.Name, name) {
			return t, nil
		}
	}
	return 0, Usagef("no tensor type is called %q", name)
}

// Elements multiplies the dimensions of shape; a scalar (empty shape) has one.
// Negative dimensions and overflow are errors.
func Elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative dimension %d", d)
		}
		if d != 0 && n > math.MaxInt64/d {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		n *= d
	}
	return n, nil
}
