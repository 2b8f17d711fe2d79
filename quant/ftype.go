package quant

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
)

// FileType is what a whole file is quantized to: general.file_type, the name of a
// recipe that gives each tensor its type.
type FileType uint32

// The file types of llama.cpp (LLAMA_FTYPE_*), by id. Two do not mean their name:
// files of IQ2_S are made of IQ2_XS tensors, and those of IQ2_M of IQ2_S.
const (
	F32       FileType = 0
	F16       FileType = 1
	Q4_0      FileType = 2
	Q4_1      FileType = 3
	Q8_0      FileType = 7
	Q5_0      FileType = 8
	Q5_1      FileType = 9
	Q2_K      FileType = 10
	Q3_K_S    FileType = 11
	Q3_K_M    FileType = 12
	Q3_K_L    FileType = 13
	Q4_K_S    FileType = 14
	Q4_K_M    FileType = 15
	Q5_K_S    FileType = 16
	Q5_K_M    FileType = 17
	Q6_K      FileType = 18
	IQ2_XXS   FileType = 19
	IQ2_XS    FileType = 20
	Q2_K_S    FileType = 21
	IQ3_XS    FileType = 22
	IQ3_XXS   FileType = 23
	IQ1_S     FileType = 24
	IQ4_NL    FileType = 25
	IQ3_S     FileType = 26
	IQ3_M     FileType = 27
	IQ2_S     FileType = 28
	IQ2_M     FileType = 29
	IQ4_XS    FileType = 30
	IQ1_M     FileType = 31
	BF16      FileType = 32
	TQ1_0     FileType = 36
	TQ2_0     FileType = 37
	MXFP4_MOE FileType = 38
	NVFP4     FileType = 39
	Q1_0      FileType = 40
	Q2_0      FileType = 41
)

// FileTypeInfo describes a file type.
type FileTypeInfo struct {
	ID      FileType
	Name    string
	Aliases []string
	Default format.Type // the type of the tensors that no rule of the recipe names
	// NeedsImatrix says that the recipe has tensors whose type demands an importance
	// matrix in every model.
	NeedsImatrix bool
}

var fileTypes = []FileTypeInfo{
	{ID: F32, Name: "F32", Default: format.F32},
	{ID: F16, Name: "F16", Default: format.F16},
	{ID: BF16, Name: "BF16", Default: format.BF16},
	{ID: Q8_0, Name: "Q8_0", Default: format.Q8_0},
	{ID: Q6_K, Name: "Q6_K", Default: format.Q6_K},
	{ID: Q5_K_M, Name: "Q5_K_M", Aliases: []string{"Q5_K"}, Default: format.Q5_K},
	{ID: Q5_K_S, Name: "Q5_K_S", Default: format.Q5_K},
	{ID: Q5_1, Name: "Q5_1", Default: format.Q5_1},
	{ID: Q5_0, Name: "Q5_0", Default: format.Q5_0},
	{ID: Q4_K_M, Name: "Q4_K_M", Aliases: []string{"Q4_K"}, Default: format.Q4_K},
	{ID: Q4_K_S, Name: "Q4_K_S", Default: format.Q4_K},
	{ID: Q4_1, Name: "Q4_1", Default: format.Q4_1},
	{ID: Q4_0, Name: "Q4_0", Default: format.Q4_0},
	{ID: IQ4_NL, Name: "IQ4_NL", Default: format.IQ4_NL},
	{ID: IQ4_XS, Name: "IQ4_XS", Default: format.IQ4_XS},
	{ID: NVFP4, Name: "NVFP4", Default: format.NVFP4},
	{ID: MXFP4_MOE, Name: "MXFP4_MOE", Default: format.MXFP4},
	{ID: Q3_K_L, Name: "Q3_K_L", Default: format.Q3_K},
	{ID: Q3_K_M, Name: "Q3_K_M", Aliases: []string{"Q3_K"}, Default: format.Q3_K},
	{ID: Q3_K_S, Name: "Q3_K_S", Default: format.Q3_K},
	{ID: IQ3_M, Name: "IQ3_M", Default: format.IQ3_S},
	{ID: IQ3_S, Name: "IQ3_S", Default: format.IQ3_S},
	{ID: IQ3_XS, Name: "IQ3_XS", Default: format.IQ3_S, NeedsImatrix: true},
	{ID: IQ3_XXS, Name: "IQ3_XXS", Default: format.IQ3_XXS, NeedsImatrix: true},
	{ID: Q2_K, Name: "Q2_K", Default: format.Q2_K},
	{ID: Q2_K_S, Name: "Q2_K_S", Default: format.Q2_K, NeedsImatrix: true},
	{ID: IQ2_M, Name: "IQ2_M", Default: format.IQ2_S, NeedsImatrix: true},
	{ID: IQ2_S, Name: "IQ2_S", Default: format.IQ2_XS, NeedsImatrix: true},
	{ID: IQ2_XS, Name: "IQ2_XS", Default: format.IQ2_XS, NeedsImatrix: true},
	{ID: IQ2_XXS, Name: "IQ2_XXS", Default: format.IQ2_XXS, NeedsImatrix: true},
	{ID: Q2_0, Name: "Q2_0", Default: format.Q2_0},
	{ID: TQ2_0, Name: "TQ2_0", Default: format.TQ2_0},
	{ID: TQ1_0, Name: "TQ1_0", Default: format.TQ1_0},
	{ID: IQ1_M, Name: "IQ1_M", Default: format.IQ1_M, NeedsImatrix: true},
	{ID: IQ1_S, Name: "IQ1_S", Default: format.IQ1_S, NeedsImatrix: true},
	{ID: Q1_0, Name: "Q1_0", Default: format.Q1_0},
}

// FileTypes lists the file types that a file can be quantized to, from large to
// small. NVFP4 among them is graft's own recipe: llama-quantize has none, its files come
// from converters of checkpoints that are NVFP4 already.
func FileTypes() []FileTypeInfo { return slices.Clip(fileTypes) }

// Info returns the description of t; ok is false for an id that is no file type.
func (t FileType) Info() (info FileTypeInfo, ok bool) {
	for _, info := range fileTypes {
		if info.ID == t {
			return info, true
		}
	}
	return FileTypeInfo{}, false
}

func (t FileType) String() string {
	if info, ok := t.Info(); ok {
		return info.Name
	}
	return fmt.Sprintf("file type %d", uint32(t))
}

// ParseFileType finds a file type by its name or alias in any case, or by its
// number ("q4_k_m", "Q4_K", "15").
func ParseFileType(s string) (FileType, error) {
	for _, info := range FileTypes() {
		if strings.EqualFold(info.Name, s) {
			return info.ID, nil
		}
		for _, alias := range info.Aliases {
			if strings.EqualFold(alias, s) {
				return info.ID, nil
			}
		}
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		for _, info := range FileTypes() {
			if info.ID == FileType(n) {
				return info.ID, nil
			}
		}
	}
	var names []string
	for _, info := range FileTypes() {
		names = append(names, info.Name)
	}
	return 0, format.Usagef("no file type is called %q; there are %s", s, strings.Join(names, ", "))
}

// MostOf is the quantized file type whose default most of a file has: sizes are the bytes of
// its tensors by type.
func MostOf(sizes map[format.Type]int64) FileType {
	id, most := Q8_0, int64(-1)
	for _, info := range FileTypes() {
		if n := sizes[info.Default]; info.Default.Quantized() && n > most {
			id, most = info.ID, n
		}
	}
	return id
}
