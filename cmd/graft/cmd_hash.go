package main

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
)

type hashOptions struct {
	all     bool
	noLayer bool
}

func newHashCmd(a *app) *cobra.Command {
	var o hashOptions
	cmd := &cobra.Command{
		Use:   "hash PATH",
		Short: "Digests of the tensors of a model, whatever the file around them is",
		Long: `hash prints the SHA-256 of each tensor's bytes and two of all of them. Metadata,
alignment and the division into shards do not matter to any of them.

  sha256    of the bytes of all tensors, one after another in the order of the file
  content   of the sorted list of names, types, shapes and SHA-256: the order of the
            tensors in the file does not matter to it

  graft hash model.gguf
  graft hash model-00001-of-00004.gguf --no-layer      as of the joined file
  graft hash model.safetensors --json
  graft hash model.gguf --all                          SHA-1 and a UUID too

The lines are those of llama.cpp's gguf_hash.py, with the same digests.` + exitStatus,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.hash(cmd.Context(), args[0], &o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "SHA-1 of each tensor and the whole, and the UUID made of it")
	f.BoolVar(&o.noLayer, "no-layer", false, "only the digests of the whole")
	return cmd
}

// uuidNamespace is the UUID in which llama.cpp makes those of models (version 5,
// of the bytes of all tensors).
var uuidNamespace = []byte{0xef, 0x00, 0x12, 0x06, 0xda, 0xdc, 0x5f, 0x6d, 0xa1, 0x5f, 0x33, 0x59, 0xe5, 0x77, 0xd4, 0xe5}

type tensorDigest struct {
	Name   string  `json:"tensor"`
	Type   string  `json:"type"`
	Shape  []int64 `json:"shape"`
	Size   int64   `json:"bytes"`
	SHA256 string  `json:"sha256"`
	SHA1   string  `json:"sha1,omitempty"`
}

type modelDigest struct {
	Path    string         `json:"path"`
	Tensors []tensorDigest `json:"tensors,omitempty"`
	SHA256  string         `json:"sha256"`
	SHA1    string         `json:"sha1,omitempty"`
	UUID    string         `json:"uuid,omitempty"`
	Content string         `json:"content"`
}

func (a *app) hash(ctx context.Context, path string, o *hashOptions) error {
	tensors, closer, err := storedTensors(path)
	if err != nil {
		return err
	}
	defer closer.Close()
	d, err := a.digestTensors(ctx, tensors, o.all)
	if err != nil {
		return err
	}
	d.Path = path
	if a.json {
		if o.noLayer {
			d.Tensors = nil
		}
		return a.printJSON(d)
	}
	line := func(kind, digest, name string) {
		if digest != "" {
			a.result("%-8s  %s  %s", kind, digest, name)
		}
	}
	if !o.noLayer {
		for _, t := range d.Tensors {
			line("sha1", t.SHA1, path+":"+t.Name)
			line("sha256", t.SHA256, path+":"+t.Name)
		}
	}
	line("sha1", d.SHA1, path)
	line("sha256", d.SHA256, path)
	line("uuid", d.UUID, path)
	line("content", d.Content, path)
	return nil
}

// storedTensors opens a GGUF file with its shards, a safetensors file or its index,
// or a folder of such files, for the bytes alone.
func storedTensors(path string) ([]*format.Tensor, io.Closer, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	open := safetensors.Open
	var magic [4]byte
	switch {
	case st.IsDir():
		open = safetensors.OpenDir
		if matches, _ := filepath.Glob(filepath.Join(path, checkpoint.AdapterWeightsName)); len(matches) == 1 {
			path, open = matches[0], safetensors.Open
		}
	case strings.HasSuffix(path, ".index.json"):
		open = safetensors.OpenIndex
	default:
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		_, err = f.ReadAt(magic[:], 0)
		f.Close()
		if err == nil && string(magic[:]) == "GGUF" {
			g, err := gguf.Open(path)
			if err != nil {
				return nil, nil, err
			}
			return g.Tensors, g, nil
		}
	}
	s, err := open(path)
	if err != nil {
		return nil, nil, err
	}
	return s.Tensors, s, nil
}

// leftOut says which tensors gguf_hash.py does not count: caches of older models
// that are no weights.
func leftOut(name string) bool {
	return strings.HasSuffix(name, ".attention.masked_bias") || strings.HasSuffix(name, ".attention.bias") || strings.HasSuffix(name, ".rotary_emb.inv_freq")
}

// digestTensors reads the tensors once for each kind of digest, the kinds at the
// same time: each is a chain that cannot be divided, but for those of single tensors.
func (a *app) digestTensors(ctx context.Context, tensors []*format.Tensor, all bool) (*modelDigest, error) {
	d := &modelDigest{Tensors: make([]tensorDigest, len(tensors))}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(a.threads, 1))
	whole := func(h hash.Hash, store func(sum []byte)) {
		g.Go(func() error {
			for _, t := range tensors {
				if leftOut(t.Name) {
					continue
				}
				if err := t.Copy(ctx, h); err != nil {
					return err
				}
			}
			store(h.Sum(nil))
			return nil
		})
	}
	whole(sha256.New(), func(sum []byte) { d.SHA256 = hex.EncodeToString(sum) })
	if all {
		whole(sha1.New(), func(sum []byte) { d.SHA1 = hex.EncodeToString(sum) })
		named := sha1.New()
		named.Write(uuidNamespace)
		whole(named, func(sum []byte) { d.UUID = uuid5(sum) })
	}
	for i, t := range tensors {
		d.Tensors[i] = tensorDigest{Name: t.Name, Type: t.Type.String(), Shape: append([]int64{}, t.Shape...), Size: t.Size}
		g.Go(func() error {
			a.progress("%d of %d tensors", i+1, len(tensors))
			h := sha256.New()
			if err := t.Copy(ctx, h); err != nil {
				return err
			}
			d.Tensors[i].SHA256 = hex.EncodeToString(h.Sum(nil))
			if all {
				h := sha1.New()
				if err := t.Copy(ctx, h); err != nil {
					return err
				}
				d.Tensors[i].SHA1 = hex.EncodeToString(h.Sum(nil))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	d.Content = contentDigest(d.Tensors)
	return d, nil
}

// contentDigest is the SHA-256 of the lines "NAME TYPE SHAPE SHA256", sorted by name.
func contentDigest(tensors []tensorDigest) string {
	sorted := slices.SortedFunc(slices.Values(tensors), func(x, y tensorDigest) int { return cmp.Compare(x.Name, y.Name) })
	h := sha256.New()
	for _, t := range sorted {
		fmt.Fprintf(h, "%q %s %s %s\n", t.Name, t.Type, shapeString(t.Shape), t.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// uuid5 makes a UUID of version 5 of a SHA-1 (RFC 9562, 5.5).
func uuid5(sum []byte) string {
	b := slices.Clone(sum[:16])
	b[6] = b[6]&0x0f | 0x50
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
