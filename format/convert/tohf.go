package convert

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
)

// HFOptions says what [ToHF] writes. The zero value is good.
type HFOptions struct {
	// Type is "f32", "f16", "bf16", or "same" (the default): float tensors keep their
	// type, quantized ones become f16, and vectors that GGUF holds as float32 get the
	// type of the matrices again if that loses nothing.
	Type string
	// MaxShardSize, if not 0, divides the tensors into files of no more bytes.
	MaxShardSize int64
}

// HFFolder is a planned Hugging Face folder.
type HFFolder struct {
	Files    []File // what stands beside the tensors
	Plan     *format.Plan
	Metadata map[string]string // of the safetensors files
	Notes    []string          // what people should know about the result

	maxShard int64
}

// File is a small file of a folder.
type File struct {
	Name string
	Data []byte
}

// ToHF plans a Hugging Face folder of m. A model from such a folder keeps the files
// beside its tensors; for one from GGUF configuration and tokenizer are rebuilt.
// To decide about the type of vectors it reads them; nothing else is read.
func ToHF(m *arch.Model, opt HFOptions) (*HFFolder, error) {
	views, err := m.HF()
	if err != nil {
		return nil, err
	}
	f := &HFFolder{Plan: &format.Plan{}, Metadata: map[string]string{"format": "pt"}, maxShard: opt.MaxShardSize}
	f.Notes = append(f.Notes, m.Notes...)
	c := &chooser{m: m, same: true, typ: floatType(m)}
	if opt.Type != "" && opt.Type != "same" {
		ft, ok := fileTypes[strings.ToLower(opt.Type)]
		if !ok || ft.typ == format.Q8_0 {
			return nil, format.Usagef("a Hugging Face folder has f32, f16, bf16 or same, not %q", opt.Type)
		}
		c.same, c.typ = false, ft.typ
	}
	for _, v := range views {
		typ, why, err := c.choose(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		o, err := format.NewOutput(v.Name, typ, v.Shape, v.Rows, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		o.Why = joinWhy(why, v.Why)
		f.Plan.Outputs = append(f.Plan.Outputs, o)
	}
	dtype := c.typ
	if c.quantized && dtype == format.F16 && strings.HasPrefix(m.Arch, "gemma") {
		dtype = format.BF16 // values fit float16, activations of these models do not
	}
	if st, err := os.Stat(m.Path); err == nil && st.IsDir() {
		f.Files, err = copyFiles(m.Path, c)
		return f, err
	}
	f.Files, err = newFiles(m, dtype)
	return f, err
}

// Write writes the folder, which appears whole or not at all.
func (f *HFFolder) Write(ctx context.Context, dir string, force bool, run format.RunOptions) error {
	w, err := checkpoint.CreateDir(dir, force)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, file := range f.Files {
		if sub := filepath.Dir(file.Name); sub != "." {
			if err := os.MkdirAll(w.Join(sub), 0o777); err != nil {
				return err
			}
		}
		if err := w.WriteFile(file.Name, file.Data); err != nil {
			return err
		}
	}
	t, err := w.Tensors(f.Plan, f.Metadata, safetensors.WriteOptions{MaxShardSize: f.maxShard})
	if err != nil {
		return err
	}
	defer t.Abort()
	if err := format.Run(ctx, f.Plan, t, run); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return w.Commit()
}

// floatType is the type that most of the model's values have or, where they are
// quantized, are written in.
func floatType(m *arch.Model) format.Type {
	all32 := true
	for _, v := range m.Views {
		if len(v.Shape) < 2 || alwaysF32(v.Name) {
			continue
		}
		if v.Type == format.F16 || v.Type == format.BF16 {
			return v.Type
		}
		all32 = all32 && v.Type == format.F32
	}
	if all32 {
		return format.F32
	}
	return format.F16
}

// chooser decides about types.
type chooser struct {
	m         *arch.Model
	same      bool // keep types
	typ       format.Type
	quantized bool // something was
}

func (c *chooser) choose(v *arch.HFView) (format.Type, string, error) {
	float := v.Type == format.F32 || v.Type == format.F16 || v.Type == format.BF16
	c.quantized = c.quantized || !float
	switch {
	case !c.same:
		return c.typ, "type asked for", nil
	case !float:
		return c.typ, fmt.Sprintf("dequantized from %v", v.Type), nil
	case v.Type != format.F32:
		return v.Type, "as it is", nil
	case c.typ == format.F32 || len(v.Shape) > 1 && !alwaysF32(v.GGUF):
		return format.F32, "as it is", nil
	}
	fits, err := c.fits(v)
	if err != nil {
		return 0, "", err
	}
	if fits {
		return c.typ, fmt.Sprintf("%v holds its values", c.typ), nil
	}
	return format.F32, fmt.Sprintf("%v would lose some of its values", c.typ), nil
}

// fits says whether GGUF's values come back when v is stored in c.typ.
func (c *chooser) fits(v *arch.HFView) (bool, error) {
	codec, err := format.EncoderOf(c.typ)
	if err != nil {
		return false, err
	}
	rows, cols := v.Rows.Dims()
	if cols == 0 {
		return true, nil
	}
	size, err := c.typ.RowBytes(cols)
	if err != nil {
		return false, err
	}
	x, back, packed := make([]float32, cols), make([]float32, cols), make([]byte, size)
	stored := make([]float32, cols)
	for r := range rows {
		if err := v.Rows.ReadRows(x, r); err != nil {
			return false, err
		}
		copy(stored, x)
		if v.Shift != 0 {
			if err := c.m.View(v.GGUF).Rows.ReadRows(stored, r); err != nil {
				return false, err
			}
		}
		if err := codec.Encode(packed, x, int(cols), nil); err != nil {
			return false, nil // too large for the type
		}
		codec.Decode(back, packed)
		for i, b := range back {
			if b+v.Shift != stored[i] {
				return false, nil
			}
		}
	}
	return true, nil
}
