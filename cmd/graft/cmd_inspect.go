package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/quant"
)

type inspectOptions struct {
	tensors, metadata bool
	base              string
	original          *adapter.Adapter // what the adapter was made of, to say what was lost
}

func newInspectCmd(a *app) *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect PATH",
		Short: "Show what a model or an adapter holds",
		Long: `inspect shows what is in a GGUF file (any shard of a split one), a safetensors file, a
Hugging Face folder or an adapter: architecture and sizes, which types the
tensors have and what they cost; for adapters the rank, the scale and the norm
of what each pair adds. Only headers are read, of adapters everything: the rank used
beside the rank paid for, what is dead, there twice, or far from its kind in other
layers, the licence, what it says of its base; with --base how large the changes are
against the weights, and whether that is the base it was trained on.

  graft inspect model.gguf
  graft inspect --tensors model.gguf
  graft inspect --metadata --json model.gguf
  graft inspect adapter/
  graft inspect adapter/ --base model.gguf` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(args[0], o) },
	}
	cmd.Flags().BoolVar(&o.tensors, "tensors", false, "list every tensor")
	cmd.Flags().BoolVar(&o.metadata, "metadata", false, "list every metadata key")
	cmd.Flags().StringVar(&o.base, "base", "", "of an adapter: the model it is for")
	return cmd
}

func (a *app) inspect(path string, o inspectOptions) error {
	kind, err := checkpoint.Sniff(path)
	if err != nil {
		return err
	}
	if kind.Adapter() {
		return a.inspectAdapter(path, o)
	}
	if kind == checkpoint.GGUFImatrix || kind == checkpoint.LegacyImatrix {
		return a.inspectImatrix(path, kind)
	}
	m, err := openAnything(path, kind)
	if err != nil {
		return err
	}
	defer m.Close()
	info := describeModel(m, kind.String())
	if a.json {
		if o.tensors {
			info.Tensors = listTensors(m.Views)
		}
		if o.metadata {
			info.Metadata = map[string]gguf.Value{}
			for _, kv := range m.Meta.All() {
				info.Metadata[kv.Key] = kv.Value
			}
		}
		return a.printJSON(info)
	}
	a.printModel(info)
	if o.metadata {
		rows := [][]string{{"key", "type", "value"}}
		for _, kv := range m.Meta.All() {
			t, elem, _ := gguf.TypeOf(kv.Value)
			name := t.String()
			if t == gguf.Array {
				name = "[" + elem.String() + "]"
			}
			rows = append(rows, []string{kv.Key, name, shortValue(kv.Value)})
		}
		a.result("")
		a.table(rows)
	}
	if o.tensors {
		rows := [][]string{{"tensor", "type", "shape", "bytes", "source"}}
		for _, t := range listTensors(m.Views) {
			rows = append(rows, []string{t.Name, t.Type, shapeString(t.Shape), count(t.Bytes), t.Why})
		}
		a.result("")
		a.table(rows)
	}
	return nil
}

// openAnything opens a model. A safetensors file alone may be of anything, and a GGUF
// file may hold tensors that graft does not decode: those are shown as they stand.
func openAnything(path string, kind checkpoint.Kind) (*arch.Model, error) {
	if kind == checkpoint.Safetensors {
		f, err := safetensors.Open(path)
		if err != nil {
			return nil, err
		}
		meta := &gguf.Meta{}
		for _, k := range f.MetadataKeys {
			meta.Set(k, f.Metadata[k])
		}
		return arch.NewModel(path, meta, asStored(f.Tensors), f.Close), nil
	}
	m, err := arch.Open(path, arch.Options{NoVocab: true})
	var unsupported *format.UnsupportedError
	if kind != checkpoint.GGUFModel || !errors.As(err, &unsupported) {
		return m, err
	}
	f, ferr := gguf.Open(path)
	if ferr != nil {
		return nil, err
	}
	return arch.NewModel(path, f.Meta, asStored(f.Tensors), f.Close), nil
}

// asStored gives tensors as views that cannot be read.
func asStored(tensors []*format.Tensor) []*format.View {
	var views []*format.View
	for _, t := range tensors {
		views = append(views, &format.View{Name: t.Name, Type: t.Type, Shape: t.Shape, From: []*format.Tensor{t}})
	}
	return views
}

func (a *app) inspectImatrix(path string, kind checkpoint.Kind) error {
	m, err := quant.ReadImatrix(path)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"path": path, "kind": kind.String(), "datasets": m.Datasets, "chunks": m.Chunks, "chunk_size": m.ChunkSize, "entries": len(m.Entries)})
	}
	a.result("%s: %v of %s, from %s; graft imatrix --show-statistics shows them", path, kind, plural(len(m.Entries), "tensor"), plural(m.Chunks, "chunk"))
	return nil
}

// modelInfo is what inspect says of a model; field names are the JSON's.
type modelInfo struct {
	Path         string                `json:"path"`
	Kind         string                `json:"kind"`
	Architecture string                `json:"architecture"`
	Name         string                `json:"name,omitempty"`
	Parameters   int64                 `json:"parameters"`
	Bytes        int64                 `json:"tensor_bytes"`
	TensorCount  int                   `json:"tensor_count"`
	Facts        []fact                `json:"facts"`
	Types        []typeUse             `json:"types"`
	Tensors      []tensorInfo          `json:"tensors,omitempty"`
	Metadata     map[string]gguf.Value `json:"metadata,omitempty"`
}

type fact struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type typeUse struct {
	Type     string `json:"type"`
	Tensors  int    `json:"tensors"`
	Elements int64  `json:"elements"`
	Bytes    int64  `json:"bytes"`
}

type tensorInfo struct {
	Name  string  `json:"tensor"`
	Type  string  `json:"type"`
	Shape []int64 `json:"shape"`
	Bytes int64   `json:"bytes"`
	Why   string  `json:"source"`
}

func listTensors(views []*format.View) []tensorInfo {
	var ts []tensorInfo
	for _, v := range views {
		why := v.Why
		if len(v.From) == 1 && v.From[0].Name != v.Name {
			why = v.From[0].Name
			if v.Why != "" {
				why += ", " + v.Why
			}
		}
		ts = append(ts, tensorInfo{v.Name, v.Type.String(), v.Shape, storedBytes(v), why})
	}
	return ts
}

// elements multiplies a shape that a reader has checked.
func elements(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// storedBytes is what a view's tensors take in their files.
func storedBytes(v *format.View) int64 {
	var n int64
	for _, t := range v.From {
		n += t.Size
	}
	return n
}

// modelFacts are the metadata keys worth a line, under the architecture's prefix.
var modelFacts = []struct{ key, label string }{
	{".block_count", "layers"},
	{".embedding_length", "hidden size"},
	{".feed_forward_length", "feed-forward size"},
	{".attention.head_count", "attention heads"},
	{".attention.head_count_kv", "key/value heads"},
	{".attention.key_length", "head size"},
	{".expert_count", "experts"},
	{".expert_used_count", "experts used"},
	{".context_length", "context"},
	{".attention.sliding_window", "sliding window"},
	{".rope.freq_base", "rope base"},
}

func describeModel(m *arch.Model, kind string) modelInfo {
	info := modelInfo{Path: m.Path, Kind: kind, Architecture: m.Arch, TensorCount: len(m.Views)}
	info.Name, _ = m.Meta.Str("general.name")
	for _, f := range modelFacts {
		if v, ok := m.Meta.Get(m.Arch + f.key); ok {
			info.Facts = append(info.Facts, fact{f.label, shortValue(v)})
		}
	}
	if t, ok := m.Meta.Strs("tokenizer.ggml.tokens"); ok {
		model, _ := m.Meta.Str("tokenizer.ggml.model")
		pre, _ := m.Meta.Str("tokenizer.ggml.pre")
		info.Facts = append(info.Facts, fact{"vocabulary", fmt.Sprintf("%s tokens, %s/%s", count(int64(len(t))), model, pre)})
	}
	if m.View("output.weight") == nil && m.View("token_embd.weight") != nil {
		info.Facts = append(info.Facts, fact{"head", "tied to the embeddings"})
	}
	uses := map[string]*typeUse{}
	for _, v := range m.Views {
		n := elements(v.Shape)
		u := uses[v.Type.String()]
		if u == nil {
			u = &typeUse{Type: v.Type.String()}
			uses[u.Type] = u
		}
		u.Tensors++
		u.Elements += n
		u.Bytes += storedBytes(v)
		info.Parameters += n
		info.Bytes += storedBytes(v)
	}
	for _, u := range uses {
		info.Types = append(info.Types, *u)
	}
	slices.SortFunc(info.Types, func(x, y typeUse) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.Type, y.Type))
	})
	return info
}

func (a *app) printModel(info modelInfo) {
	a.result("%s: %s", info.Path, info.Kind)
	var rows [][]string
	if info.Architecture != "" {
		rows = append(rows, []string{"architecture", info.Architecture})
	}
	if info.Name != "" {
		rows = append(rows, []string{"name", info.Name})
	}
	rows = append(rows, []string{"parameters", count(info.Parameters)},
		[]string{"tensors", fmt.Sprintf("%d, %s", info.TensorCount, size(info.Bytes))})
	for _, f := range info.Facts {
		rows = append(rows, []string{f.Key, f.Value})
	}
	a.table(rows)
	a.result("")
	rows = [][]string{{"type", "tensors", "elements", "bytes", "bits/weight", "share"}}
	for _, u := range info.Types {
		bits := "-"
		if u.Elements > 0 {
			bits = fmt.Sprintf("%.3f", 8*float64(u.Bytes)/float64(u.Elements))
		}
		rows = append(rows, []string{u.Type, count(int64(u.Tensors)), count(u.Elements), count(u.Bytes), bits, percent(float64(u.Bytes), float64(info.Bytes))})
	}
	a.table(rows)
}
