package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/merge"
)

type adaptersOptions struct {
	base, search string
	gate         gateFlags
}

func newAdaptersCmd(a *app) *cobra.Command {
	var o adaptersOptions
	cmd := &cobra.Command{
		Use:   "adapters FOLDER",
		Short: "List the adapters in a folder, and check them against their base",
		Long: `adapters finds every adapter under a folder, of any form, and says what each is. With
--base each is checked: does it fit, was it trained on this base; with --policy: does
it keep the rules. Adapters that cannot be read are listed with what is wrong.

  graft adapters lessons/
  graft adapters lessons/ --search zorp            in names, bases, licences and metadata
  graft adapters lessons/ --base model.gguf        exits with 5 if one does not belong to it
  graft adapters lessons/ --base model.gguf --policy policy.yaml --json` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.listAdapters(args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "model that they should belong to")
	f.StringVar(&o.search, "search", "", "list only those that have this text in their path or in what they say of themselves")
	o.gate.add(cmd)
	return cmd
}

// adapterEntry is an adapter of a folder.
type adapterEntry struct {
	Path       string `json:"path"`
	Format     string `json:"format"`
	Pairs      int    `json:"pairs"`
	Rank       int    `json:"largest_rank"`
	Parameters int64  `json:"parameters"`
	Base       string `json:"base,omitempty"`
	Licence    string `json:"licence,omitempty"`
	Status     string `json:"status"`            // "ok", "not to be used"; with a base "trained on this base" and others
	Problem    string `json:"problem,omitempty"` // why it is not to be used
}

func (a *app) listAdapters(root string, o *adaptersOptions) error {
	var base *arch.Model
	var err error
	if o.base != "" {
		if base, err = arch.Open(o.base, arch.Options{NoVocab: true}); err != nil {
			return err
		}
		defer base.Close()
	}
	var policy *merge.Policy
	if o.gate.policy != "" {
		if policy, err = merge.LoadPolicy(o.gate.policy); err != nil {
			return format.Usagef("%v", err)
		}
	}
	paths, err := findAdapters(root)
	if err != nil {
		return err
	}
	list := []*adapterEntry{}
	bad := 0
	for i, p := range paths {
		a.progress("%d of %d: %s", i+1, len(paths), p)
		e, text := a.describeAdapter(p, base, policy, &o.gate)
		if o.search != "" && !strings.Contains(strings.ToLower(text), strings.ToLower(o.search)) {
			continue
		}
		if e.Problem != "" {
			e.Status = "not to be used"
			bad++
		}
		list = append(list, e)
	}
	if a.json {
		if err := a.printJSON(map[string]any{"adapters": list}); err != nil {
			return err
		}
	} else {
		rows := [][]string{{"adapter", "form", "pairs", "rank", "parameters", "base", "licence", ""}}
		for _, e := range list {
			what, _, _ := strings.Cut(cmp.Or(e.Problem, e.Status), "\n")
			if e.Format == "" { // of which nothing is known
				rows = append(rows, []string{e.Path, "", "", "", "", "", "", what})
				continue
			}
			rows = append(rows, []string{e.Path, e.Format, fmt.Sprint(e.Pairs), fmt.Sprint(e.Rank), count(e.Parameters), e.Base, e.Licence, what})
		}
		a.table(rows)
	}
	if bad > 0 {
		return &format.CheckError{Reason: fmt.Sprintf("%d of %s are not to be used", bad, plural(len(list), "adapter"))}
	}
	return nil
}

// findAdapters lists adapter folders and files under root, the folders not entered.
func findAdapters(root string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ext := strings.ToLower(filepath.Ext(p))
		if !e.IsDir() && (!e.Type().IsRegular() || ext != ".gguf" && ext != ".safetensors") {
			return nil
		}
		kind, err := checkpoint.Sniff(p)
		if err == nil && !kind.Adapter() || errors.Is(err, fs.ErrNotExist) {
			return nil // something else, which is no matter of this command
		}
		// What cannot be read may have been an adapter, and is listed as what it is.
		paths = append(paths, p)
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(paths)
	return paths, err
}

// describeAdapter reads an adapter; text is all that it says of itself. What is wrong with it is its
// Problem, since the others are to be listed all the same.
func (a *app) describeAdapter(path string, base *arch.Model, policy *merge.Policy, g *gateFlags) (e *adapterEntry, text string) {
	e = &adapterEntry{Path: path, Status: "ok"}
	ad, err := openAdapter(path)
	if err != nil {
		e.Problem = err.Error()
		return e, path
	}
	e.Format, e.Pairs, e.Base = ad.Format, len(ad.Pairs), ad.Base
	for _, p := range ad.Pairs {
		e.Rank = max(e.Rank, p.Rank)
		e.Parameters += int64(p.Rank) * int64(p.A.Cols+p.B.Rows)
	}
	e.Parameters += ad.Tokens.Parameters()
	if e.Licence, err = adapter.Licence(path); err != nil {
		e.Problem = err.Error()
	}
	said := []string{path, ad.Name, ad.Base, ad.Arch, e.Licence}
	for k, v := range ad.Meta {
		said = append(said, k, v)
	}
	text = strings.Join(said, "\n")
	if base != nil && e.Problem == "" {
		if err := ad.Resolve(base); err != nil {
			e.Problem = err.Error()
			return e, text
		}
		match, err := ad.CheckBase(base, a.threads)
		switch {
		case err != nil && !g.mismatch:
			e.Problem = err.Error()
		case err != nil:
			e.Status = "trained on another base"
		default:
			e.Status = [...]string{adapter.BaseUnknown: "fits; does not say what it was trained on", adapter.BaseSame: "trained on this base",
				adapter.BaseSameSource: "trained on another quantization"}[match]
		}
	}
	if policy != nil && e.Problem == "" {
		broken, err := policy.Check(ad, base)
		if err == nil {
			err = verdictOf(g.policy, path, broken)
		}
		if err != nil {
			e.Problem = strings.ReplaceAll(err.Error(), "\n ", "")
		}
	}
	return e, text
}
