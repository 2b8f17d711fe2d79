package merge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/signing"
)

// Policy says which adapters may be used. The zero value allows all of them.
type Policy struct {
	// Signers are PEM files with public keys, beside the policy: an adapter must carry a
	// signature by one of them.
	Signers []string `yaml:"signers"`
	// Bases are what an adapter may be made for: digests that it records (of the base's
	// files or source, or the first digits of one), or names that it claims.
	Bases []string `yaml:"bases"`
	// Licences are SPDX identifiers, in any case: the adapter must state one of them.
	Licences []string `yaml:"licences"`
	// MaxNorm is the largest ‖W' − W‖ / ‖W‖ (Frobenius) of a changed matrix or vector, or of the rows of
	// tokens that the base has; 0: any.
	MaxNorm float64 `yaml:"max_norm"`
	// MaxRank is the largest rank of a matrix; 0: any.
	MaxRank int `yaml:"max_rank"`
	// ForbidTargets are patterns (path.Match) over GGUF and Hugging Face names, which no
	// matrix of an adapter may match: "output*", "*embed_tokens". They need the base, by which a
	// matrix has both.
	ForbidTargets []string `yaml:"forbid_targets"`
	// RequireProvenance wants an adapter to record the tensors of its base.
	RequireProvenance bool `yaml:"require_provenance"`

	path string
	keys []*signing.PublicKey
}

// LoadPolicy reads a policy from a YAML file. Unknown keys, and rules without a value, are errors, so that
// a misspelt or unfinished rule does not allow what it should forbid.
func LoadPolicy(file string) (*Policy, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := &Policy{path: file}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(p); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it has no rules", file)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var rules map[string]any
	if err := yaml.Unmarshal(data, &rules); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if list, ok := rules[name].([]any); rules[name] == nil || rules[name] == 0 || rules[name] == 0.0 || ok && len(list) == 0 {
			return nil, fmt.Errorf("%s: %s has no value, and would let everything in: leave the rule out, or say what it is", file, name)
		}
	}
	for _, pattern := range p.ForbidTargets {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("%s: forbid_targets: %q: %w", file, pattern, err)
		}
	}
	if p.MaxNorm < 0 || p.MaxNorm != p.MaxNorm || p.MaxRank < 0 {
		return nil, fmt.Errorf("%s: max_norm is %v and max_rank %d: neither may be negative", file, p.MaxNorm, p.MaxRank)
	}
	for _, s := range p.Signers {
		if !filepath.IsAbs(s) {
			s = filepath.Join(filepath.Dir(file), s)
		}
		k, err := signing.LoadPublicKey(s)
		if err != nil {
			return nil, fmt.Errorf("%s: signers: %w", file, err)
		}
		p.keys = append(p.keys, k)
	}
	return p, nil
}

// Check lists what the policy forbids of an adapter that is to be used on base, which
// may be nil: then rules that need it are broken, and the adapter need not be resolved.
// The error is one of reading.
func (p *Policy) Check(a *adapter.Adapter, base *arch.Model) (broken []string, err error) {
	bad := func(f string, args ...any) { broken = append(broken, fmt.Sprintf(f, args...)) }
	if len(p.keys) > 0 {
		if err := CheckSignature(a.Path, p.keys...); err != nil {
			bad("signers: %v", err)
		}
	}
	if len(p.Bases) > 0 && !slices.ContainsFunc(p.Bases, func(b string) bool { return isFor(a, b) }) {
		bad("bases: it is for %s", strings.Join(claims(a), ", "))
	}
	if len(p.Licences) > 0 {
		licence, err := adapter.Licence(a.Path)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(p.Licences, func(l string) bool { return strings.EqualFold(l, licence) }) {
			bad("licences: it states %s", orNothing(licence))
		}
	}
	if p.RequireProvenance && a.Meta[adapter.MetaBaseTensors] == "" {
		bad("require_provenance: it does not record the tensors of its base")
	}
	for _, pair := range a.Pairs {
		if p.MaxRank > 0 && pair.Rank > p.MaxRank {
			bad("max_rank: %s has rank %d", nameOf(pair), pair.Rank)
		}
		for _, pattern := range p.ForbidTargets {
			x, _ := path.Match(pattern, pair.Target)
			y, _ := path.Match(pattern, pair.Module)
			if x || y {
				bad("forbid_targets: it changes %s", nameOf(pair))
			}
		}
	}
	if len(p.ForbidTargets) > 0 && base == nil && !a.Resolved() {
		bad("forbid_targets: give the base, by which matrices have both their names")
	}
	if a.Tokens != nil {
		for _, r := range a.Tokens.Rows {
			for _, pattern := range p.ForbidTargets {
				x, _ := path.Match(pattern, r.Target)
				y, _ := path.Match(pattern, r.Module)
				if x || y {
					bad("forbid_targets: it has rows of %d tokens of %s", len(r.IDs), r.Module)
				}
			}
		}
	}
	if p.MaxNorm > 0 {
		norms, err := p.norms(a, base)
		if err != nil {
			return nil, err
		}
		broken = append(broken, norms...)
	}
	return broken, nil
}

func (p *Policy) norms(a *adapter.Adapter, base *arch.Model) (broken []string, err error) {
	if base == nil {
		return []string{"max_norm: give the base, the norm is measured against its weights"}, nil
	}
	for _, pair := range a.Pairs {
		s, err := PairSpectrum(pair)
		if err != nil {
			return nil, err
		}
		norm, _ := EffectiveRank(s)
		change, weight, err := changeNorms(pair, norm, base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Path, err)
		}
		if !(change <= p.MaxNorm*weight) {
			broken = append(broken, fmt.Sprintf("max_norm: the change of %s has %.3g of its weights' norm", nameOf(pair), change/weight))
		}
	}
	if a.Tokens != nil {
		for _, r := range a.Tokens.Rows {
			change, weight, err := rowNorms(r, base)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Path, err)
			}
			if !(change <= p.MaxNorm*weight) {
				broken = append(broken, fmt.Sprintf("max_norm: the change of rows of tokens of %s has %.3g of these rows' norm", r.Module, change/weight))
			}
		}
	}
	return broken, nil
}

// rowNorms are the Frobenius norms of what rows of tokens differ by from the base's, and of these. Rows
// of tokens that the base does not have change none of its weights.
func rowNorms(r adapter.TokenRows, base *arch.Model) (change, weight float64, err error) {
	v := base.View(r.Target)
	if v == nil {
		return 0, 0, fmt.Errorf("the base has no tensor %s", r.Target)
	}
	defer release(v)
	rows, cols := v.Rows.Dims()
	w := make([]float32, cols)
	for i, id := range r.IDs {
		if int64(id) >= rows {
			continue
		}
		if err := v.Rows.ReadRows(w, int64(id)); err != nil {
			return 0, 0, err
		}
		for j, x := range r.Rows.Row(i) {
			d := float64(x) - float64(w[j])
			change += float64(d * d)
			weight += float64(float64(w[j]) * float64(w[j]))
		}
	}
	return math.Sqrt(change), math.Sqrt(weight), nil
}

// squares sums the squares of rows.
func squares(r format.RowReader, first, rows int64) (sum float64, err error) {
	_, cols := r.Dims()
	n := max(1, (1<<18)/cols)
	buf := make([]float32, n*cols)
	for row := int64(0); row < rows; row += n {
		part := buf[:min(n, rows-row)*cols]
		if err := r.ReadRows(part, first+row); err != nil {
			return 0, err
		}
		for _, x := range part {
			sum += float64(float64(x) * float64(x))
		}
	}
	return sum, nil
}

func nameOf(p *adapter.Pair) string {
	if p.Module != "" {
		return p.Module
	}
	return p.Target
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// isFor says whether an adapter is for a base that a policy names.
func isFor(a *adapter.Adapter, base string) bool {
	if base == "" {
		return false
	}
	if a.Base != "" && base == a.Base {
		return true
	}
	for _, key := range []string{adapter.MetaBaseFiles, adapter.MetaBaseSource} {
		if len(base) >= 8 && strings.HasPrefix(a.Meta[key], strings.ToLower(base)) {
			return true
		}
	}
	return false
}

func claims(a *adapter.Adapter) []string {
	var list []string
	for _, s := range []string{a.Base, a.Meta[adapter.MetaBaseFiles], a.Meta[adapter.MetaBaseSource]} {
		if s != "" {
			list = append(list, s)
		}
	}
	if list == nil {
		list = []string{"no base that it names"}
	}
	return list
}

// SignaturePath is where the signature of a file or folder stands: [signing.SignatureName]
// in a folder, the file's name and ".sig" beside a file.
func SignaturePath(p string) string {
	if st, err := os.Stat(p); err == nil && st.IsDir() {
		return filepath.Join(p, signing.SignatureName)
	}
	return p + ".sig"
}

// CheckSignature says what is wrong with the signature of a file or folder, which must be
// by one of keys and stand where [SignaturePath] says.
func CheckSignature(p string, keys ...*signing.PublicKey) error {
	file := SignaturePath(p)
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is not signed: there is no %s", p, file)
	}
	if err != nil {
		return err
	}
	_, err = signing.VerifyPath(p, file, data, 1, keys...)
	return err
}
