package signing

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// ManifestType is the predicate type of a signed manifest.
const ManifestType = "https://model_signing/signature/v1.0"

// SignatureName is the usual name of the signature in a signed folder.
const SignatureName = "model.sig"

// Resource is a file of a manifest.
type Resource struct {
	Name      string `json:"name"` // path in the folder, with slashes; "." of a single file
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"` // in hexadecimal
}

// Manifest lists the files of a model with their digests, in the order of their paths.
type Manifest struct {
	Name      string // of the file or folder; says nothing
	Resources []Resource
	Rules     Rules
}

// Rules say which files count.
type Rules struct {
	Method        string   `json:"method"`    // "files"
	HashType      string   `json:"hash_type"` // "sha256"
	AllowSymlinks bool     `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths,omitempty"` // paths in the folder, with all that is under them
}

// gitPaths do not count: git makes them, not people.
var gitPaths = []string{".git", ".gitattributes", ".github", ".gitignore"}

// HashOptions is how files are hashed. The zero value is good.
type HashOptions struct {
	Ignore        []string // paths in the folder that do not count, besides git's
	AllowSymlinks bool     // follow symbolic links, which are refused otherwise
	Threads       int      // files hashed at once; 0: one
	Progress      func(name string)
}

// HashPath makes the manifest of a file or a folder. Symbolic links and things that are
// neither file nor folder are errors, so that nothing escapes the signature.
func HashPath(path string, o HashOptions) (*Manifest, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Name: filepath.Base(abs), Rules: Rules{Method: "files", HashType: "sha256", AllowSymlinks: o.AllowSymlinks}}
	m.Rules.IgnorePaths = append(slices.Clone(gitPaths), o.Ignore...)
	slices.Sort(m.Rules.IgnorePaths)
	m.Rules.IgnorePaths = slices.Compact(m.Rules.IgnorePaths)
	if !st.IsDir() {
		m.Resources = []Resource{{Name: "."}}
	} else if m.Resources, err = m.Rules.list(path); err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.SetLimit(max(o.Threads, 1))
	for i := range m.Resources {
		r := &m.Resources[i]
		g.Go(func() error {
			if o.Progress != nil {
				o.Progress(r.Name)
			}
			var err error
			r.Algorithm = "sha256"
			r.Digest, err = HashFile(filepath.Join(path, filepath.FromSlash(r.Name)))
			return err
		})
	}
	return m, g.Wait()
}

// HashFile is the SHA-256 of a file in hexadecimal.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// list finds the files of a folder that count, in order.
func (r *Rules) list(root string) ([]Resource, error) {
	var names []string
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		mode := e.Type()
		switch {
		case name == ".":
			return nil
		case slices.Contains(r.IgnorePaths, name):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case mode&fs.ModeSymlink != 0:
			if !r.AllowSymlinks {
				return fmt.Errorf("%s is a symbolic link: --allow-symlinks follows them", p)
			}
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			if st.IsDir() {
				return fmt.Errorf("%s is a link to a folder: only links to files are followed", p)
			}
		case e.IsDir():
			return nil
		case !mode.IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", p)
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s holds no file", root)
	}
	// By their parts, as paths are compared: a/z before a.txt.
	slices.SortFunc(names, func(x, y string) int { return slices.Compare(strings.Split(x, "/"), strings.Split(y, "/")) })
	list := make([]Resource, len(names))
	for i, n := range names {
		list[i].Name = n
	}
	return list, nil
}

// Root is the SHA-256 of all digests, one after another: the digest of the whole.
func (m *Manifest) Root() (string, error) {
	h := sha256.New()
	for _, r := range m.Resources {
		b, err := hex.DecodeString(r.Digest)
		if err != nil {
			return "", fmt.Errorf("the digest of %s: %w", r.Name, err)
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

type manifestPredicate struct {
	Serialization Rules      `json:"serialization"`
	Resources     []Resource `json:"resources"`
}

// Statement is the manifest as a statement to sign.
func (m *Manifest) Statement() (*Statement, error) {
	root, err := m.Root()
	if err != nil {
		return nil, err
	}
	p, err := json.Marshal(manifestPredicate{m.Rules, m.Resources})
	if err != nil {
		return nil, err
	}
	return &Statement{
		Type:    StatementType,
		Subject: []Subject{{Name: m.Name, Digest: map[string]string{"sha256": root}}}, PredicateType: ManifestType, Predicate: p,
	}, nil
}

// ManifestOf reads the manifest that a statement holds, and checks that it agrees with
// the statement's subject.
func ManifestOf(s *Statement) (*Manifest, error) {
	if s.PredicateType != ManifestType {
		return nil, fmt.Errorf("a statement of %s, not a model signature", s.PredicateType)
	}
	var p manifestPredicate
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		return nil, fmt.Errorf("the predicate: %w", err)
	}
	if p.Serialization.Method != "files" || p.Serialization.HashType != "sha256" {
		return nil, fmt.Errorf("files hashed by %q, %q: only whole files by sha256 are verified", p.Serialization.Method, p.Serialization.HashType)
	}
	for _, r := range p.Resources {
		if r.Algorithm != "sha256" {
			return nil, fmt.Errorf("%s is hashed by %s, not by sha256", r.Name, r.Algorithm)
		}
	}
	m := &Manifest{Resources: p.Resources, Rules: p.Serialization}
	if len(s.Subject) != 1 {
		return nil, fmt.Errorf("%d subjects, where one is wanted", len(s.Subject))
	}
	m.Name = s.Subject[0].Name
	root, err := m.Root()
	if err != nil {
		return nil, err
	}
	if root != s.Subject[0].Digest["sha256"] {
		return nil, errors.New("the digest of the whole is not that of the files listed")
	}
	return m, nil
}

// Compare lists how the files of have differ from those of m: what is missing, what is
// new, what has changed. nil if nothing does.
func (m *Manifest) Compare(have *Manifest) []string {
	var diffs []string
	was := map[string]string{}
	for _, r := range m.Resources {
		was[r.Name] = r.Digest
	}
	for _, r := range have.Resources {
		d, ok := was[r.Name]
		switch {
		case !ok:
			diffs = append(diffs, r.Name+" is not among the signed files")
		case !strings.EqualFold(d, r.Digest):
			diffs = append(diffs, r.Name+" has changed")
		}
		delete(was, r.Name)
	}
	for _, r := range m.Resources {
		if _, ok := was[r.Name]; ok {
			diffs = append(diffs, r.Name+" is missing")
		}
	}
	return diffs
}

// VerifyPath checks a file or a folder against the bundle that stands in file, whose
// bytes are data: it must be signed by one of keys, and every file must be as it was
// signed. It gives the key. A mismatch is an [ErrSignature] that says what differs.
func VerifyPath(path, file string, data []byte, threads int, keys ...*PublicKey) (*PublicKey, error) {
	b, err := ParseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s, key, err := b.Verify(keys...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	want, err := ManifestOf(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	o := HashOptions{Ignore: want.Rules.IgnorePaths, AllowSymlinks: want.Rules.AllowSymlinks, Threads: threads}
	o.Ignore = append(slices.Clone(o.Ignore), Inside(path, file)...)
	have, err := HashPath(path, o)
	if err != nil {
		return nil, err
	}
	if diffs := want.Compare(have); diffs != nil {
		return nil, fmt.Errorf("%w for %s: %s", ErrSignature, path, strings.Join(diffs, "; "))
	}
	return key, nil
}

// Inside is the path of file in folder, as [HashOptions.Ignore] wants it; none if it is
// not in there.
func Inside(folder, file string) []string {
	x, err1 := filepath.Abs(folder)
	y, err2 := filepath.Abs(file)
	if err1 != nil || err2 != nil {
		return nil
	}
	rel, err := filepath.Rel(x, y)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return nil
	}
	return []string{filepath.ToSlash(rel)}
}
