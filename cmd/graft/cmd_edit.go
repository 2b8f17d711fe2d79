package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

type editOptions struct {
	output  outputFlags
	set     []string
	setFile []string
	remove  []string
	rename  []string
	inPlace bool
}

func newEditCmd(a *app) *cobra.Command {
	var o editOptions
	cmd := &cobra.Command{
		Use:   "edit FILE.gguf",
		Short: "Change metadata of a GGUF file; tensors are copied as they are",
		Long: `edit changes metadata keys. A key keeps its type if it exists; a new one needs it:

  graft edit m.gguf --set general.name="My model" -o new.gguf
  graft edit m.gguf --set llama.context_length=4096 -o new.gguf
  graft edit m.gguf --set my.key=u32:7 --delete general.url -o new.gguf
  graft edit m.gguf --set-file tokenizer.chat_template=template.jinja --in-place

Types are u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str; arrays are written as
[1,2,3] after a type such as [i32]. --in-place writes a new file beside the old
one and then takes its name: the old one is whole until the new one is.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.edit(cmd.Context(), args[0], &o) },
	}
	o.output.add(cmd, "GGUF file to write")
	f := cmd.Flags()
	f.StringArrayVar(&o.set, "set", nil, "KEY=VALUE or KEY=TYPE:VALUE (repeatable)")
	f.StringArrayVar(&o.setFile, "set-file", nil, "KEY=FILE: a string from a file (repeatable)")
	f.StringArrayVar(&o.remove, "delete", nil, "KEY to delete (repeatable)")
	f.StringArrayVar(&o.rename, "rename", nil, "OLD=NEW: rename a key (repeatable)")
	f.BoolVar(&o.inPlace, "in-place", false, "replace FILE by the edited one")
	return cmd
}

func (a *app) edit(ctx context.Context, path string, o *editOptions) error {
	if o.inPlace {
		if o.output.path != "" {
			return format.Usagef("--in-place and -o exclude each other")
		}
		o.output.path, o.output.force = path, true
	} else if err := o.output.check(path); err != nil {
		return err
	}
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if o.inPlace && len(f.Shards) > 1 {
		return format.Unsupported("%s is split: --in-place edits single files; use -o, which writes one", path)
	}
	meta, err := editMeta(f.Meta, o)
	if err != nil {
		return err
	}
	plan := &format.Plan{}
	for _, t := range f.Tensors {
		plan.Outputs = append(plan.Outputs, copyTensor(t))
	}
	if err := a.writeGGUF(ctx, "copied", &o.output, meta, plan); err != nil || o.output.dryRun {
		return err
	}
	a.result("%s written: %s", o.output.path, plural(meta.Len(), "metadata key"))
	if a.json {
		return a.printJSON(map[string]any{"path": o.output.path, "keys": meta.Len()})
	}
	return nil
}

// copyTensor is an output that copies a stored tensor's bytes, whatever its type.
func copyTensor(t *format.Tensor) *format.Output {
	return &format.Output{Name: t.Name, Type: t.Type, Shape: t.Shape, Why: "copied", Units: t.Size, UnitBytes: 1,
		Fill: func(dst []byte, off int64) error {
			_, err := t.ReadAt(dst, off)
			return err
		}}
}

func editMeta(old *gguf.Meta, o *editOptions) (*gguf.Meta, error) {
	meta := old.Clone()
	for _, key := range o.remove {
		if !meta.Has(key) {
			return nil, format.Usagef("--delete %s: there is no such key", key)
		}
		meta.Delete(key)
	}
	for _, s := range o.rename {
		from, to, ok := strings.Cut(s, "=")
		if !ok || to == "" {
			return nil, format.Usagef("--rename %q: write OLD=NEW", s)
		}
		if !meta.Has(from) || meta.Has(to) {
			return nil, format.Usagef("--rename %s: %s must exist and %s must not", s, from, to)
		}
		renamed := &gguf.Meta{}
		for _, kv := range meta.All() {
			if kv.Key == from {
				kv.Key = to
			}
			renamed.Set(kv.Key, kv.Value)
		}
		meta = renamed
	}
	for _, s := range o.setFile {
		key, file, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, format.Usagef("--set-file %q: write KEY=FILE", s)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		meta.Set(key, string(text))
	}
	for _, s := range o.set {
		key, text, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, format.Usagef("--set %q: write KEY=VALUE", s)
		}
		was, _ := meta.Get(key)
		v, err := parseValue(text, was)
		if err != nil {
			return nil, format.Usagef("--set %s: %v", key, err)
		}
		meta.Set(key, v)
	}
	return meta, nil
}

// parseValue reads TYPE:VALUE, or a VALUE of the type that was has.
func parseValue(text string, was gguf.Value) (gguf.Value, error) {
	if name, rest, ok := strings.Cut(text, ":"); ok {
		if elem, isArray := strings.CutPrefix(name, "["); isArray && strings.HasSuffix(elem, "]") {
			return parseArray(strings.TrimSuffix(elem, "]"), rest)
		}
		if v, err := parseScalar(name, rest); err == nil || !isUnknownType(err) {
			return v, err
		}
	}
	if was == nil {
		return nil, fmt.Errorf("the key is new: write its type, as in u32:%s or str:%s", text, text)
	}
	t, elem, _ := gguf.TypeOf(was)
	if t == gguf.Array {
		return parseArray(elem.String(), text)
	}
	return parseScalar(t.String(), text)
}

type unknownType string

func (t unknownType) Error() string { return fmt.Sprintf("no value type is called %q", string(t)) }

func isUnknownType(err error) bool { _, ok := err.(unknownType); return ok }

func parseScalar(name, s string) (gguf.Value, error) {
	integer := func(bits int) (int64, error) { return strconv.ParseInt(s, 0, bits) }
	natural := func(bits int) (uint64, error) { return strconv.ParseUint(s, 0, bits) }
	switch name {
	case "u8":
		n, err := natural(8)
		return uint8(n), err
	case "u16":
		n, err := natural(16)
		return uint16(n), err
	case "u32":
		n, err := natural(32)
		return uint32(n), err
	case "u64":
		return natural(64)
	case "i8":
		n, err := integer(8)
		return int8(n), err
	case "i16":
		n, err := integer(16)
		return int16(n), err
	case "i32":
		n, err := integer(32)
		return int32(n), err
	case "i64":
		return integer(64)
	case "f32":
		f, err := strconv.ParseFloat(s, 32)
		return float32(f), err
	case "f64":
		return strconv.ParseFloat(s, 64)
	case "bool":
		return strconv.ParseBool(s)
	case "str":
		return s, nil
	}
	return nil, unknownType(name)
}

// parseArray reads [a,b,c] into the slice type of elem.
func parseArray(elem, s string) (gguf.Value, error) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "[") || !strings.HasSuffix(s, "]") {
		return nil, fmt.Errorf("write an array as [a,b,c]")
	}
	inner := s[1 : len(s)-1]
	var parts []string
	if strings.TrimSpace(inner) != "" {
		parts = strings.Split(inner, ",")
	}
	var values []gguf.Value
	for _, p := range parts {
		v, err := parseScalar(elem, strings.TrimSpace(p))
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	switch elem {
	case "u8":
		return sliceOf[uint8](values), nil
	case "u16":
		return sliceOf[uint16](values), nil
	case "u32":
		return sliceOf[uint32](values), nil
	case "u64":
		return sliceOf[uint64](values), nil
	case "i8":
		return sliceOf[int8](values), nil
	case "i16":
		return sliceOf[int16](values), nil
	case "i32":
		return sliceOf[int32](values), nil
	case "i64":
		return sliceOf[int64](values), nil
	case "f32":
		return sliceOf[float32](values), nil
	case "f64":
		return sliceOf[float64](values), nil
	case "bool":
		return sliceOf[bool](values), nil
	case "str":
		return sliceOf[string](values), nil
	}
	return nil, unknownType(elem)
}

func sliceOf[T any](values []gguf.Value) []T {
	s := make([]T, len(values))
	for i, v := range values {
		s[i] = v.(T)
	}
	return s
}
