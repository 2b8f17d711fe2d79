package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

// gateFlags stand between an adapter and the model it would change.
type gateFlags struct {
	mismatch bool
	policy   string
}

func (g *gateFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&g.mismatch, "allow-base-mismatch", false, "use adapters that were trained on another base than this one")
	f.StringVar(&g.policy, "policy", "", "YAML file with rules that every adapter must keep (see graft verify)")
}

// load opens an adapter for a base that runs, and with g lets it through only if it was
// trained on this base and keeps the policy.
func (a *app) load(g *gateFlags, base *train.Base, path string) (*model.Adapter, error) {
	ad, err := a.openFor(g, base.Original(), path)
	if err != nil {
		return nil, err
	}
	return base.UseAdapter(ad)
}

// openFor opens an adapter and, with g, lets it through the gate to base.
func (a *app) openFor(g *gateFlags, base *arch.Model, path string) (*adapter.Adapter, error) {
	ad, err := openAdapter(path)
	if err == nil && g != nil {
		err = a.passOpen(g, base, ad)
	}
	return ad, err
}

func (a *app) passOpen(g *gateFlags, base *arch.Model, ad *adapter.Adapter) error {
	if err := ad.Resolve(base); err != nil {
		return err
	}
	if !g.mismatch {
		match, err := ad.CheckBase(base, a.threads)
		if err != nil {
			return err
		}
		if match == adapter.BaseSameSource {
			a.say("%s was trained on another quantization of the checkpoint that %s comes from", ad.Path, base.Path)
		}
	}
	if g.policy == "" {
		return nil
	}
	p, err := merge.LoadPolicy(g.policy)
	if err != nil {
		return format.Usagef("%v", err)
	}
	broken, err := p.Check(ad, base)
	if err != nil {
		return err
	}
	return verdictOf(g.policy, ad.Path, broken)
}

const recordSourceHelp = "write the digest of the source into the output, so that adapters of its other quantizations are known to fit (one key that the reference does not write)"

// recordSource writes into m's metadata which checkpoint it is.
func (a *app) recordSource(m *arch.Model) error {
	d, err := adapter.SourceDigest(m, nil, a.threads)
	if err != nil {
		return err
	}
	m.Meta.Set(adapter.SourceKey, d)
	return nil
}

// verdictOf makes an error of what a policy forbids.
func verdictOf(policy, path string, broken []string) error {
	if broken == nil {
		return nil
	}
	return &format.CheckError{Reason: path + " does not keep " + policy + ":\n  " + strings.Join(broken, "\n  ")}
}
