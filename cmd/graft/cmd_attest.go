package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/signing"
	"github.com/graft-lora/graft/train"
)

type attestOptions struct {
	output, key string
	force       bool
}

func newAttestCmd(a *app) *cobra.Command {
	var o attestOptions
	cmd := &cobra.Command{
		Use:   "attest -o STATEMENT.json [--key KEY.pem] -- COMMAND ARGS...",
		Short: "Carry out a command and write down how its output was made",
		Long: `attest runs a graft command and writes an in-toto statement (SLSA provenance v1) of
it: the digest of what came out, the arguments, and the digests of all files that
the arguments, and a run file or a recipe among them, name. With --key it is
signed. Since outputs are functions of inputs and arguments, the statement can be
checked by making the file again:

  graft attest -o merged.intoto.json --key me.pem -- merge base.gguf lesson -o merged.gguf
  graft verify merged.gguf --rederive merged.intoto.json --key me.pub.pem` + exitStatus,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.attest(cmd.Context(), args, &o) },
	}
	cmd.Flags().SetInterspersed(false)
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "statement to write")
	f.StringVar(&o.key, "key", "", "PEM file with the private key to sign it with")
	f.BoolVar(&o.force, "force", false, "replace a statement that exists")
	return cmd
}

// derivation is a command line of graft, understood.
type derivation struct {
	args   []string
	inputs []string // paths as the arguments have them
	output string
	at     int // of the output in args
	prefix string
}

// derive finds what a command line reads and writes.
func (a *app) derive(args []string) (*derivation, error) {
	root := newRoot(&app{out: a.out, err: a.err})
	c, rest, err := root.Find(args)
	if err != nil || c == root {
		return nil, format.Usagef("%q is no command of graft", args[0])
	}
	if slices.Contains([]string{"attest", "sign", "verify", "demo"}, c.Name()) {
		return nil, format.Usagef("graft %s makes no file that could be made again", c.Name())
	}
	if err := c.ParseFlags(rest); err != nil {
		return nil, format.Usagef("%v", err)
	}
	d := &derivation{args: args, at: -1}
	if f := c.Flags().Lookup("output"); f != nil {
		d.output = f.Value.String()
	}
	if d.output == "" {
		return nil, format.Usagef("the command names no output with -o")
	}
	for i, s := range args {
		for _, lead := range []string{"", "-o", "-o=", "--output="} {
			if s == lead+d.output {
				d.at, d.prefix = i, lead
			}
		}
	}
	if d.at < 0 {
		return nil, format.Usagef("the output %s stands nowhere among the arguments", d.output)
	}
	paths := c.Flags().Args()
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "output" {
			return
		}
		if v, ok := f.Value.(pflag.SliceValue); ok {
			paths = append(paths, v.GetSlice()...)
			return
		}
		paths = append(paths, f.Value.String())
	})
	for _, p := range paths {
		d.input(parseWeighted(p).path)
		if _, after, ok := strings.Cut(p, "="); ok {
			d.input(after)
		}
	}
	return d, nil
}

// contained are the arguments with another output, and nothing written elsewhere: they may be a stranger's. dir is for what else they write.
func (a *app) contained(d *derivation, output, dir string) ([]string, error) {
	args := slices.Clone(d.args)
	args[d.at] = d.prefix + output
	c, _, err := newRoot(&app{out: a.out, err: a.err}).Find(args)
	if err != nil {
		return nil, err
	}
	if slices.Contains(args, "--") {
		return nil, format.Usagef("its arguments end in -- and more, which is not carried out")
	}
	for _, f := range []struct{ name, value string }{{"report", filepath.Join(dir, "report.html")}, {"data-cache", "none"}} {
		given := slices.ContainsFunc(args, func(s string) bool { return s == "--"+f.name || strings.HasPrefix(s, "--"+f.name+"=") })
		if c.Flags().Lookup(f.name) != nil && (given || c.Name() == "train") { // whose run file may have it
			args = append(args, "--"+f.name+"="+f.value)
		}
	}
	again, err := a.derive(args)
	if err == nil && again.output != output {
		err = format.Usagef("its arguments name the output %s twice", again.output)
	}
	return args, err
}

// input notes a path that exists, and those that a YAML file at it names.
func (d *derivation) input(path string) {
	st, err := os.Stat(path)
	if err != nil || path == "" || slices.Contains(d.inputs, path) || path == d.output {
		return
	}
	d.inputs = append(d.inputs, path)
	if ext := strings.ToLower(filepath.Ext(path)); st.IsDir() || ext != ".yaml" && ext != ".yml" {
		return
	}
	b, err := os.ReadFile(path)
	var doc yaml.Node
	if err != nil || yaml.Unmarshal(b, &doc) != nil {
		return // the command itself says what is wrong with it
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			for part := range strings.SplitSeq(n.Value, "+") { // model+adapter, in recipes
				d.input(part)
			}
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(&doc)
}

// dependencies are the inputs with their digests.
func (d *derivation) dependencies(threads int) ([]signing.Dependency, error) {
	list := []signing.Dependency{}
	for _, p := range d.inputs {
		m, err := signing.HashPath(p, signing.HashOptions{AllowSymlinks: true, Threads: threads})
		if err != nil {
			return nil, err
		}
		sum, err := m.Digest()
		if err != nil {
			return nil, err
		}
		list = append(list, signing.Dependency{Name: p, Digest: map[string]string{"sha256": sum}})
	}
	return list, nil
}

// volatile are the files of a training run that say how it went on a machine: times,
// memory, paths. They are no part of its result.
var volatile = []string{train.ConfigFile, train.RecordFile, train.LogFile, train.CurveFile, train.EventsFile, train.ReferenceFile, train.ReportFile, "checkpoints"}

// subjects are the files that came out at path, named by their place under the base name
// of the output, so that they can be found wherever they lie.
func subjects(path string, threads int) ([]signing.Subject, error) {
	var o signing.HashOptions
	o.Threads = threads
	st, err := os.Stat(path)
	var list []string
	if errors.Is(err, fs.ErrNotExist) { // shards
		list, _ = filepath.Glob(escapeGlob(strings.TrimSuffix(path, ".gguf")) + "-*-of-*.gguf")
	}
	switch {
	case err != nil && list == nil:
		return nil, err
	case err != nil:
		slices.Sort(list)
	default:
		list = []string{path}
		if st.IsDir() {
			if _, err := os.Stat(filepath.Join(path, train.RecordFile)); err == nil {
				o.Ignore = volatile
			}
			o.Ignore = append(o.Ignore, signing.SignatureName)
		}
	}
	var out []signing.Subject
	for _, p := range list {
		m, err := signing.HashPath(p, o)
		if err != nil {
			return nil, err
		}
		for _, r := range m.Resources {
			name := filepath.Base(p)
			if r.Name != "." {
				name += "/" + r.Name
			}
			out = append(out, signing.Subject{Name: name, Digest: map[string]string{"sha256": r.Digest}})
		}
	}
	return out, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// carryOut runs a command line of graft in this process.
func (a *app) carryOut(ctx context.Context, args []string) error {
	inner := &app{out: a.err, err: a.err, quiet: a.quiet}
	root := newRoot(inner)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	inner.endStatus()
	return err
}

func (a *app) attest(ctx context.Context, args []string, o *attestOptions) error {
	if o.output == "" {
		return format.Usagef("name the statement with -o")
	}
	if err := replaceable(o.output, o.force, "a statement", signedMark, statementMark); err != nil {
		return err
	}
	var key *signing.PrivateKey
	var err error
	if o.key != "" {
		if key, err = signing.LoadPrivateKey(o.key); err != nil {
			return err
		}
	}
	d, err := a.derive(args)
	if err != nil {
		return err
	}
	deps, err := d.dependencies(a.threads)
	if err != nil {
		return err
	}
	if err := a.carryOut(ctx, args); err != nil {
		return err
	}
	made, err := subjects(d.output, a.threads)
	if err != nil {
		return err
	}
	s, err := signing.NewProvenance(train.Version(), args, deps).Statement(made)
	if err != nil {
		return err
	}
	if err := a.writeBundle(o.output, s, key, o.force); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(s)
	}
	a.result("%s: %s of %s, made of %s", o.output, plural(len(made), "file"), d.output, plural(len(deps), "input"))
	return nil
}
