package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// Keys of [Adapter.Meta] that say which base an adapter belongs to.
const (
	// MetaBaseTensors holds a JSON object: of each tensor that the adapter changes the
	// first 32 hexadecimal digits of [arch.Model.TensorDigest].
	MetaBaseTensors = "graft.base.tensors"
	// MetaBaseSource is the [SourceDigest] of the base.
	MetaBaseSource = "graft.base.source"
	// MetaBaseFiles is a digest of the files of the base.
	MetaBaseFiles = "graft.base.sha256"
)

// SourceKey is the GGUF key with the [SourceDigest] of what a file was quantized or
// converted from. It is written where --record-source asks for it.
const SourceKey = "provenance.source.sha256"

// digits of a tensor's digest that an adapter keeps.
const digits = 32

// TensorDigests is the digest of each view of m among names, all of them if names is
// nil, by up to threads at a time.
func TensorDigests(m *arch.Model, names []string, threads int) (map[string]string, error) {
	if names == nil {
		for _, v := range m.Views {
			names = append(names, v.Name)
		}
	}
	list := make([]string, len(names))
	var g errgroup.Group
	g.SetLimit(max(threads, 1))
	for i, name := range names {
		if m.View(name) == nil {
			continue
		}
		g.Go(func() (err error) {
			list[i], err = m.TensorDigest(name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, name := range names {
		if list[i] != "" {
			out[name] = list[i]
		}
	}
	return out, nil
}

// SourceDigest names the checkpoint that m comes from: what [SourceKey] says, else the
// SHA-256 of the names and digests of all its tensors. all are those of m, or nil.
func SourceDigest(m *arch.Model, all map[string]string, threads int) (string, error) {
	if s := recordedSource(m.Meta); s != "" {
		return s, nil
	}
	if all == nil {
		var err error
		if all, err = TensorDigests(m, nil, threads); err != nil {
			return "", err
		}
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(h, "%q %s\n", name, all[name])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func recordedSource(m *gguf.Meta) string {
	s, _ := m.Str(SourceKey)
	return s
}

// BaseIdentity is the metadata that ties an adapter of the tensors in names to m.
func BaseIdentity(m *arch.Model, names []string, threads int) (map[string]string, error) {
	all, err := TensorDigests(m, nil, threads)
	if err != nil {
		return nil, err
	}
	source, err := SourceDigest(m, all, threads)
	if err != nil {
		return nil, err
	}
	of := map[string]string{}
	for _, name := range names {
		if d := all[name]; d != "" {
			of[name] = d[:digits]
		}
	}
	b, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	return map[string]string{MetaBaseTensors: string(b), MetaBaseSource: source}, nil
}

// BaseMatch is what [Adapter.CheckBase] found.
type BaseMatch int

// What an adapter says of a base.
const (
	BaseUnknown    BaseMatch = iota // the adapter does not say what it was trained on
	BaseSame                        // the tensors that it changes are those it was trained on
	BaseSameSource                  // another quantization of the checkpoint it was trained on
)

// CheckBase compares the base that a was trained on with m. Another base is a
// [format.CheckError] that names the first tensor that differs. a must be resolved.
func (a *Adapter) CheckBase(m *arch.Model, threads int) (BaseMatch, error) {
	text := a.Meta[MetaBaseTensors]
	if text == "" {
		return BaseUnknown, nil
	}
	var want map[string]string
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		return BaseUnknown, &format.CorruptError{Path: a.Path, Offset: -1, Field: MetaBaseTensors, Err: err}
	}
	names := slices.Sorted(maps.Keys(want))
	have, err := TensorDigests(m, names, threads)
	if err != nil {
		return BaseUnknown, err
	}
	for _, name := range names {
		if d := have[name]; d != "" && d[:digits] == want[name] {
			continue
		}
		if source := a.Meta[MetaBaseSource]; source != "" {
			s, err := SourceDigest(m, nil, threads)
			if err != nil {
				return BaseUnknown, err
			}
			if s == source {
				return BaseSameSource, nil
			}
		}
		return BaseUnknown, &format.CheckError{Reason: fmt.Sprintf(
			"the adapter %s was trained on another base than %s: the tensor %s is not the one; --allow-base-mismatch uses it all the same", a.Path, m.Path, name)}
	}
	return BaseSame, nil
}
