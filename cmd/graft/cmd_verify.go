package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/signing"
	"github.com/graft-lora/graft/merge"
)

type verifyOptions struct {
	keys                []string
	signature, rederive string
	root, base          string
	gate                gateFlags
}

func newVerifyCmd(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify PATH --key KEY.pub.pem",
		Short: "Check a signature, how a file was made, or an adapter against a policy",
		Long: `verify checks what is known of a file or folder. What does not hold exits with 5.

  graft verify lesson --key me.pub.pem                             its signature, and every file of it
  graft verify merged.gguf --rederive merged.intoto.json           by making it again: the same bytes
  graft verify merged.gguf --rederive s.json --key me.pub.pem      and the statement is signed
  graft verify lesson --policy policy.yaml --base base.gguf        an adapter against rules
  graft verify lesson --base base.gguf                             is this the base it was trained on?

A policy is a YAML file; every rule in it must be kept:

  signers: [me.pub.pem]               keys, beside the policy: signed by one of them
  bases: [4f1a2b3c, org/model]        digests that it records (graft.base.sha256), or names
  licences: [apache-2.0, mit]         what its card or file states
  max_norm: 0.1                       of a change, against its weights (needs --base)
  max_rank: 64
  forbid_targets: ["output*", "*embed_tokens"]     GGUF's names or Hugging Face's (needs --base)
  require_provenance: true            it records the tensors of its base

merge, run and eval take --policy, too, and stop before an adapter is used.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], &o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "PEM file with a public key that may have signed (repeatable)")
	f.StringVar(&o.signature, "signature", "", "signature (model.sig in a folder, FILE.sig beside a file)")
	f.StringVar(&o.rederive, "rederive", "", "statement of graft attest: make PATH again and compare the bytes")
	f.StringVar(&o.root, "root", ".", "folder that the inputs named in the statement are found from")
	f.StringVar(&o.base, "base", "", "base model of an adapter")
	o.gate.add(cmd)
	return cmd
}

func (a *app) verify(ctx context.Context, path string, o *verifyOptions) error {
	var keys []*signing.PublicKey
	for _, p := range o.keys {
		k, err := signing.LoadPublicKey(p)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	var done []string
	hold := func(f string, args ...any) {
		done = append(done, fmt.Sprintf(f, args...))
		a.result("%s", done[len(done)-1])
	}
	if o.rederive != "" {
		if err := a.rederive(ctx, path, o, keys, hold); err != nil {
			return err
		}
	} else if keys != nil {
		k, err := verifySignature(path, o.signature, a.threads, keys)
		if err != nil {
			return err
		}
		hold("%s is signed by the key %.16s", path, k.ID())
	}
	if o.base != "" || o.gate.policy != "" {
		if err := a.verifyAdapter(path, o, hold); err != nil {
			return err
		}
	}
	if done == nil {
		return format.Usagef("say what to check: --key, --rederive, --policy or --base")
	}
	if a.json {
		return a.printJSON(map[string]any{"path": path, "holds": done})
	}
	return nil
}

// verifySignature checks the signature of a path. What does not hold is a CheckError.
func verifySignature(path, file string, threads int, keys []*signing.PublicKey) (*signing.PublicKey, error) {
	if file == "" {
		file = merge.SignaturePath(path)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	k, err := signing.VerifyPath(path, file, data, threads, keys...)
	if errors.Is(err, signing.ErrSignature) {
		return nil, &format.CheckError{Reason: err.Error()}
	}
	return k, err
}

// verifyAdapter checks an adapter against its base and a policy.
func (a *app) verifyAdapter(path string, o *verifyOptions, hold func(string, ...any)) error {
	ad, err := openAdapter(path)
	if err != nil {
		return err
	}
	if o.base == "" {
		p, err := merge.LoadPolicy(o.gate.policy)
		if err != nil {
			return format.Usagef("%v", err)
		}
		broken, err := p.Check(ad, nil)
		if err != nil {
			return err
		}
		if err := verdictOf(o.gate.policy, path, broken); err != nil {
			return err
		}
		hold("%s keeps %s", path, o.gate.policy)
		return nil
	}
	base, err := arch.Open(o.base, arch.Options{NoVocab: true})
	if err != nil {
		return err
	}
	defer base.Close()
	if err := a.passOpen(&o.gate, base, ad); err != nil {
		return err
	}
	switch {
	case o.gate.mismatch:
	case ad.Meta[adapter.MetaBaseTensors] == "":
		hold("%s fits %s, and does not say what it was trained on", path, o.base)
	default:
		hold("%s was trained on %s", path, o.base)
	}
	if o.gate.policy != "" {
		hold("%s keeps %s", path, o.gate.policy)
	}
	return nil
}

// rederive makes a file again as a statement says, and compares.
func (a *app) rederive(ctx context.Context, path string, o *verifyOptions, keys []*signing.PublicKey, hold func(string, ...any)) error {
	s, err := readStatement(o.rederive, keys)
	if err != nil {
		return err
	}
	p, err := signing.ProvenanceOf(s)
	if err != nil {
		return fmt.Errorf("%s: %w", o.rederive, err)
	}
	if keys != nil {
		hold("%s is signed", o.rederive)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := compareSubjects(s, path, "is not what the statement is of", a.threads); err != nil {
		return err
	}
	hold("%s is what %s is of", path, o.rederive)
	if err := os.Chdir(o.root); err != nil {
		return err
	}
	for _, dep := range p.Definition.Dependencies {
		m, err := signing.HashPath(dep.Name, signing.HashOptions{AllowSymlinks: true, Threads: a.threads})
		if err != nil {
			return fmt.Errorf("an input of %s: %w", path, err)
		}
		if sum, err := m.Digest(); err != nil || sum != dep.Digest["sha256"] {
			return errors.Join(err, &format.CheckError{Reason: fmt.Sprintf("the input %s is not the one that %s was made of", dep.Name, path)})
		}
	}
	hold("%s as they were", plural(len(p.Definition.Dependencies), "input"))
	d, err := a.derive(p.Definition.Parameters.Arguments)
	if err != nil {
		return fmt.Errorf("%s: %w", o.rederive, err)
	}
	// Beside the file, where there is room for one; under the same name, which may stand in it.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".graft-rederive-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	again := filepath.Join(dir, filepath.Base(d.output))
	args, err := a.contained(d, again, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", o.rederive, err)
	}
	if err := a.carryOut(ctx, args); err != nil {
		return fmt.Errorf("making %s again: %w", path, err)
	}
	if err := compareSubjects(s, again, "comes out differently", a.threads); err != nil {
		return err
	}
	hold("made again: the same bytes")
	return nil
}

// readStatement reads a statement, signed by one of keys if there are any.
func readStatement(path string, keys []*signing.PublicKey) (*signing.Statement, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, err := signing.ParseBundle(data)
	if err != nil {
		if keys != nil {
			return nil, &format.CheckError{Reason: fmt.Sprintf("%s is not signed: %v", path, err)}
		}
		s, err := signing.ParseStatement(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return s, nil
	}
	if keys == nil {
		return b.Statement()
	}
	s, _, err := b.Verify(keys...)
	if errors.Is(err, signing.ErrSignature) {
		return nil, &format.CheckError{Reason: fmt.Sprintf("%s: %v", path, err)}
	}
	return s, err
}

// compareSubjects compares what a statement is of with the files at path.
func compareSubjects(s *signing.Statement, path, what string, threads int) error {
	have, err := subjects(path, threads)
	if err != nil {
		return err
	}
	trim := func(name string) string { // what is compared is the place in the output
		if _, rest, ok := strings.Cut(name, "/"); ok {
			return rest
		}
		return ""
	}
	got := map[string]string{}
	for _, h := range have {
		key := trim(h.Name)
		if len(s.Subject) > 1 && key == "" { // shards, which only their names tell apart
			key = h.Name
		}
		got[key] = h.Digest["sha256"]
	}
	for _, w := range s.Subject {
		key := trim(w.Name)
		if len(s.Subject) > 1 && key == "" {
			key = w.Name
		}
		if got[key] != w.Digest["sha256"] {
			return &format.CheckError{Reason: fmt.Sprintf("%s %s: %s differs", path, what, w.Name)}
		}
	}
	return nil
}
