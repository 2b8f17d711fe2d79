package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/atomicfile"
	"github.com/graft-lora/graft/internal/signing"
	"github.com/graft-lora/graft/merge"
)

type signOptions struct {
	key, output, newKey, kind string
	ignore                    []string
	symlinks, force           bool
}

func newSignCmd(a *app) *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign PATH --key KEY.pem",
		Short: "Sign a model or an adapter (OpenSSF Model Signing v1, by a key)",
		Long: `sign hashes a file, or every file of a folder, and signs the list. The signature
stands in model.sig in a folder, in FILE.sig beside a file; graft verify and the
model_signing program of OpenSSF check it.

  graft sign --new-key me                       me.pem, to keep secret, and me.pub.pem
  graft sign lesson --key me.pem
  graft sign merged.gguf --key me.pem -o merged.sig
  graft verify lesson --key me.pub.pem

Keys are PEM files: Ed25519 or ECDSA on P-256 (also P-384 and P-521), as openssl
makes them. model_signing knows the ECDSA ones only.` + exitStatus,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.newKey != "" {
				if len(args) > 0 {
					return format.Usagef("--new-key makes keys, and signs nothing: %s is one argument too many", args[0])
				}
				return a.newKey(&o)
			}
			if len(args) == 0 || o.key == "" {
				return format.Usagef("name what is signed and the key: graft sign PATH --key KEY.pem")
			}
			return a.sign(args[0], &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "PEM file with the private key")
	f.StringVarP(&o.output, "output", "o", "", "signature to write (model.sig in a folder, FILE.sig beside a file)")
	f.StringArrayVar(&o.ignore, "ignore", nil, "path in the folder that does not count, with all under it (repeatable)")
	f.BoolVar(&o.symlinks, "allow-symlinks", false, "follow symbolic links to files")
	f.BoolVar(&o.force, "force", false, "replace a signature that exists")
	f.StringVar(&o.newKey, "new-key", "", "make NAME.pem and NAME.pub.pem, and stop")
	f.StringVar(&o.kind, "kind", "p256", "of the new key: "+strings.Join(signing.Kinds(), ", "))
	return cmd
}

func (a *app) newKey(o *signOptions) error {
	k, err := signing.GenerateKey(o.kind)
	if err != nil {
		return format.Usagef("%v", err)
	}
	private, err := k.PEM()
	if err != nil {
		return err
	}
	names := []string{o.newKey + ".pem", o.newKey + ".pub.pem"}
	for _, n := range names {
		if _, err := os.Stat(n); !errors.Is(err, fs.ErrNotExist) && !o.force {
			return format.Usagef("%s exists; --force replaces it", n)
		}
	}
	// A key is nobody else's to read, from its first byte on.
	if o.force {
		if err := os.Remove(names[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(names[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(private)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(names[1], k.Public().PEM(), o.force); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"private": names[0], "public": names[1], "key": k.Public().ID()})
	}
	a.result("%s: the private key; %s: the public one, %s", names[0], names[1], k.Public().ID())
	return nil
}

// signedMark is in every file that writeBundle has signed, statementMark in what it has not.
const (
	signedMark    = "application/vnd.dev.sigstore.bundle"
	statementMark = "in-toto.io/Statement"
)

func (a *app) sign(path string, o *signOptions) error {
	key, err := signing.LoadPrivateKey(o.key)
	if err != nil {
		return err
	}
	out := o.output
	if out == "" {
		out = merge.SignaturePath(path)
	}
	if err := replaceable(out, o.force, "a signature", signedMark); err != nil {
		return err
	}
	m, err := signing.HashPath(path, signing.HashOptions{
		Ignore: append(signing.Inside(path, out), o.ignore...), AllowSymlinks: o.symlinks, Threads: a.threads,
		Progress: func(name string) { a.progress("hashing %s", name) },
	})
	if err != nil {
		return err
	}
	s, err := m.Statement()
	if err != nil {
		return err
	}
	if err := a.writeBundle(out, s, key, o.force); err != nil {
		return err
	}
	root := s.Subject[0].Digest["sha256"]
	if a.json {
		return a.printJSON(map[string]any{"signature": out, "files": len(m.Resources), "sha256": root, "key": key.Public().ID()})
	}
	a.result("%s: %s signed, sha256 %s, by the key %.16s", out, plural(len(m.Resources), "file"), root, key.Public().ID())
	return nil
}

// writeBundle signs a statement into a file; without a key it stands there unsigned.
func (a *app) writeBundle(path string, s *signing.Statement, key *signing.PrivateKey, force bool) error {
	data, err := s.JSON()
	if key != nil {
		var b *signing.Bundle
		if b, err = signing.Sign(s, key); err == nil {
			data, err = b.JSON()
		}
	}
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, data, force)
}
