package main

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/merge"
)

// adapterOutput are the flags of commands that write an adapter.
type adapterOutput struct {
	path  string
	base  string
	typ   string
	form  string
	force bool
}

func (o *adapterOutput) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.path, "output", "o", "", "adapter to write: FILE.gguf, FILE.safetensors (as kohya's and LyCORIS), or a PEFT folder")
	addAdapterForm(cmd, &o.form)
	f.StringVar(&o.typ, "type", "f16", "type of its matrices: f16, bf16, f32; in GGUF also q8_0 and other types")
	f.BoolVar(&o.force, "force", false, "replace an output that exists")
}

// addBase is for commands that can do without a base where formats do not change.
func (o *adapterOutput) addBase(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.base, "base", "", "model that the adapters belong to: needed when formats change between PEFT and GGUF")
}

// check fails early, before anything is read: where the output cannot be, or its form or type not be written.
func (o *adapterOutput) check(inputs ...string) error {
	out := outputFlags{path: o.path, force: o.force}
	if err := out.check(append(inputs, o.base)...); err != nil {
		return err
	}
	_, _, err := o.as()
	return err
}

// as is the form and the type that are asked for.
func (o *adapterOutput) as() (form, format.Type, error) {
	form, err := adapterForm(o.form, o.path)
	if err != nil {
		return form, 0, err
	}
	typ, err := format.ParseType(o.typ)
	if err != nil {
		return form, 0, format.Usagef("%v; there are f32, f16 and bf16, in GGUF also q8_0, q4_0 and other types", err)
	}
	if typ.Quantized() && form.name != "gguf" {
		return form, 0, format.Unsupported("%s holds f32, f16 or bf16, not %v; write a .gguf for quantized matrices", form.what, typ)
	}
	return form, typ, nil
}

// resolve opens the base and brings the adapters to its terms. Without a base it
// does nothing. The base stays open until close is called.
func (o *adapterOutput) resolve(adapters ...*adapter.Adapter) (done func(), err error) {
	if o.base == "" {
		return func() {}, nil
	}
	m, err := arch.Open(o.base, arch.Options{NoVocab: true})
	if err != nil {
		return nil, err
	}
	for _, a := range adapters {
		if err := a.Resolve(m); err != nil {
			m.Close()
			return nil, err
		}
	}
	return func() { m.Close() }, nil
}

// write writes an adapter in the form that the path asks for.
func (o *adapterOutput) write(a *adapter.Adapter, opt adapter.WriteOptions) error {
	form, typ, err := o.as()
	if err != nil {
		return err
	}
	opt.Type, opt.Force = typ, o.force
	return form.write(o.path, a, opt)
}

// stay keeps the form of an adapter that one is made of, where the output's name leaves two.
func (o *adapterOutput) stay(a *adapter.Adapter) {
	if o.form == "" && a.Format == "diffusers" && strings.EqualFold(filepath.Ext(o.path), ".safetensors") {
		o.form = "diffusers"
	}
}

// form is a form that adapters are written in.
type form struct {
	name, what string
	ending     string // of a file; "" for a folder
	write      func(path string, a *adapter.Adapter, opt adapter.WriteOptions) error
}

var forms = []form{
	{"gguf", "a GGUF file", ".gguf", adapter.WriteGGUF},
	{"peft", "a PEFT folder", "", adapter.WritePEFT},
	{"kohya", "a file of kohya's form", ".safetensors", adapter.WriteKohya},
	{"diffusers", "a file of diffusers' form", ".safetensors", adapter.WriteDiffusers},
	{"mlx", "an MLX folder", "", adapter.WriteMLX},
}

func addAdapterForm(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "to", "", "form of the adapter, where the output's name does not say it: gguf, peft, kohya, diffusers, mlx")
}

// adapterForm is the form that is asked for by name, or else by the output's path.
func adapterForm(name, path string) (form, error) {
	if name == "" {
		switch {
		case isGGUF(path):
			name = "gguf"
		case strings.EqualFold(filepath.Ext(path), ".safetensors"):
			name = "kohya"
		default:
			name = "peft"
		}
	}
	ending := strings.ToLower(filepath.Ext(path))
	for _, f := range forms {
		switch {
		case f.name != name:
		case f.ending != "" && ending != f.ending:
			return form{}, format.Usagef("%s is %s: name it %s%s", path, f.what, strings.TrimSuffix(path, filepath.Ext(path)), f.ending) // it would not be known as one
		case f.ending == "" && (ending == ".gguf" || ending == ".safetensors"):
			return form{}, format.Usagef("%s is %s: give it a name that does not end in %s", path, f.what, ending)
		default:
			return f, nil
		}
	}
	return form{}, format.Usagef("--to %s: gguf, peft, kohya, diffusers or mlx", name)
}

// adapterInfo is what inspect says of an adapter.
type adapterInfo struct {
	Path         string            `json:"path"`
	Format       string            `json:"format"`
	Architecture string            `json:"architecture,omitempty"`
	Base         string            `json:"base,omitempty"`
	Type         string            `json:"type"`
	Parameters   int64             `json:"parameters"`
	Licence      string            `json:"licence,omitempty"`
	BaseDigest   string            `json:"base_sha256,omitempty"` // what it records of its base
	Trained      *bool             `json:"trained_on_base,omitempty"`
	Invocation   []uint32          `json:"invocation,omitempty"` // tokens from which on it acts
	Review       *merge.Review     `json:"review"`
	PairCount    int               `json:"pair_count"`
	Pairs        []pairInfo        `json:"pairs"`
	Tokens       []tokenInfo       `json:"tokens,omitempty"`
	OutputError  *outputError      `json:"output_error,omitempty"` // of an adapter that was quantized
	Metadata     map[string]string `json:"metadata,omitempty"`
}

// tokenInfo describes a token that an adapter has rows for.
type tokenInfo struct {
	ID    int32     `json:"id"`
	Token string    `json:"token,omitempty"` // where the adapter says it
	New   bool      `json:"new,omitempty"`   // the base does not have it
	Norms []float64 `json:"norms"`           // of its rows: embedding, and head if it is not tied
}

// tokenInfos describes the rows of tokens.
func tokenInfos(t *adapter.Tokens, resolved bool) (list []tokenInfo) {
	if t == nil {
		return nil
	}
	for _, id := range t.IDs() {
		info := tokenInfo{ID: id, Token: t.Name(id)}
		info.New = resolved && slices.ContainsFunc(t.Added, func(a arch.AddedToken) bool { return a.ID == int(id) })
		for _, r := range t.Rows {
			if i, ok := slices.BinarySearch(r.IDs, id); ok {
				var sum float64
				for _, x := range r.Rows.Row(i) {
					sum += float64(float64(x) * float64(x))
				}
				info.Norms = append(info.Norms, math.Sqrt(sum))
			}
		}
		list = append(list, info)
	}
	return list
}

// printTokens lists the rows of tokens, of many the first.
func (a *app) printTokens(list []tokenInfo, all bool) {
	if len(list) == 0 {
		return
	}
	a.result("")
	rows := [][]string{{"rows of token", "", "", "norm"}}
	for i, t := range list {
		if i == 20 && !all {
			rows = append(rows, []string{fmt.Sprintf("%d more", len(list)-i), "", "", ""})
			break
		}
		what := ""
		if t.New {
			what = "new"
		}
		var norms []string
		for _, n := range t.Norms {
			norms = append(norms, fmt.Sprintf("%.4g", n))
		}
		rows = append(rows, []string{fmt.Sprint(t.ID), t.Token, what, strings.Join(norms, ", ")})
	}
	a.table(rows)
}

// pairInfo describes a pair. Norms are those of Scale*B*A, computed from the
// factors alone.
type pairInfo struct {
	Name      string  `json:"matrix"`
	Rows      int     `json:"rows"`
	Cols      int     `json:"cols"`
	Rank      int     `json:"rank"`
	Scale     float32 `json:"scale"`
	Norm      float64 `json:"frobenius_norm"`
	RMS       float64 `json:"rms"`
	Effective float64 `json:"effective_rank"` // e^entropy of the squared singular values' shares
	DoRA      bool    `json:"dora,omitempty"`
	// Ratio is the norm of the whole change against that of the weights, where the base is given.
	Ratio float64 `json:"ratio_to_weights,omitempty"`
}

func (a *app) inspectAdapter(path string, o inspectOptions) error {
	ad, err := openAdapter(path)
	if err != nil {
		return err
	}
	info := adapterInfo{Path: path, Format: ad.Format, Architecture: ad.Arch, Base: ad.Base, Type: ad.Type.String(), PairCount: len(ad.Pairs)}
	if o.metadata {
		info.Metadata = ad.Meta
	}
	if info.Licence, err = adapter.Licence(path); err != nil {
		return err
	}
	info.BaseDigest, info.Invocation = ad.Meta[adapter.MetaBaseFiles], ad.Invocation
	var base *arch.Model
	if o.base != "" {
		if base, err = arch.Open(o.base, arch.Options{NoVocab: true}); err != nil {
			return err
		}
		defer base.Close()
		if err := ad.Resolve(base); err != nil {
			return err
		}
		match, err := ad.CheckBase(base, a.threads)
		if trained := match == adapter.BaseSame; err == nil && match != adapter.BaseUnknown {
			info.Trained = &trained
		} else if err != nil {
			info.Trained = new(bool)
		}
	}
	if info.Review, err = merge.ReviewAdapter(ad, base); err != nil {
		return err
	}
	for i, p := range ad.Pairs {
		pi, err := describePair(p)
		if err != nil {
			return err
		}
		if base != nil {
			pi.Ratio = info.Review.Ratios[i]
		}
		info.Pairs = append(info.Pairs, pi)
		info.Parameters += int64(p.Rank) * int64(p.A.Cols+p.B.Rows)
	}
	if o.original != nil {
		if info.OutputError, err = errorAgainst(o.original, ad); err != nil {
			return err
		}
	}
	info.Tokens = tokenInfos(ad.Tokens, base != nil)
	info.Parameters += ad.Tokens.Parameters()
	if a.json {
		return a.printJSON(info)
	}
	what := plural(info.PairCount, "pair")
	if n := len(info.Tokens); n > 0 {
		what += ", rows of " + plural(n, "token")
	}
	a.result("%s: %s adapter, %s", path, info.Format, what)
	rows := [][]string{}
	for _, f := range []fact{{"architecture", info.Architecture}, {"base", info.Base}, {"type", info.Type}, {"parameters", count(info.Parameters)},
		{"licence", info.Licence}, {"base sha256", info.BaseDigest}, {"acts from tokens", strings.Trim(fmt.Sprint(info.Invocation), "[]")}} {
		if f.Value != "" {
			rows = append(rows, []string{f.Key, f.Value})
		}
	}
	a.table(rows)
	a.result("")
	a.printPairs(info.Pairs, o.tensors, base != nil)
	a.printTokens(info.Tokens, o.tensors)
	if err := ad.Complete(); err != nil {
		a.result("")
		a.result("not known yet: %v", err)
	}
	a.printReview(info.Review, info.Trained)
	if e := info.OutputError; e != nil && e.Largest == 0 {
		a.result("output error against %s: none", o.original.Path)
	} else if e != nil {
		a.result("output error against %s: %.3g %%, largest %.3g %% (%s)", o.original.Path, 100*e.All, 100*e.Largest, e.LargestName)
	}
	for _, k := range slices.Sorted(maps.Keys(info.Metadata)) {
		a.result("%s: %s", k, shortValue(info.Metadata[k]))
	}
	return nil
}

// printReview says what stands out.
func (a *app) printReview(r *merge.Review, trained *bool) {
	a.result("")
	a.result("ranks: %d paid for, %.1f used, %d hold 99 %% of every change", r.RankPaid, r.RankUsed, r.Needed)
	if r.DoRA > 0 {
		a.result("matrices whose norms it sets, too (DoRA): %d; the table has the norms of the products alone", r.DoRA)
	}
	for _, l := range []struct {
		what string
		list []string
	}{{"changes nothing", r.Dead}, {"there twice", r.Duplicates}, {"out of line", r.Outliers}, {"changes a vector", r.Vectors}} {
		for i, s := range l.list {
			if i == 8 {
				a.result("%s: %d more", l.what, len(l.list)-i)
				break
			}
			a.result("%s: %s", l.what, s)
		}
	}
	if r.Largest != "" {
		a.result("largest against its weights: %s, %.3g of their norm", r.Largest, r.LargestRatio)
	}
	if trained != nil {
		a.result("trained on this base: %v", *trained)
	}
}

// printPairs lists pairs, or a line for each kind of matrix.
func (a *app) printPairs(pairs []pairInfo, all, ratios bool) {
	rows := [][]string{{"matrix", "size", "rank", "scale", "norm", "rms", "effective rank"}}
	if ratios {
		rows[0] = append(rows[0], "of its weights")
	}
	if !all {
		pairs = groupPairs(pairs)
	}
	for _, p := range pairs {
		row := []string{p.Name, fmt.Sprintf("%dx%d", p.Rows, p.Cols), fmt.Sprint(p.Rank), fmt.Sprintf("%.4g", p.Scale),
			fmt.Sprintf("%.4g", p.Norm), fmt.Sprintf("%.3g", p.RMS), fmt.Sprintf("%.1f", p.Effective)}
		if ratios {
			row = append(row, percent(p.Ratio, 1))
		}
		rows = append(rows, row)
	}
	a.table(rows)
}
