package signing

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// The digests of this folder as OpenSSF's model_signing 1.1.1 lists them.
func TestManifestOfModelSigning(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "m")
	write(t, dir, map[string]string{"b.txt": "hello\n", "a/z": "x\n", "a.txt": "y\n", ".gitignore": "q", ".git/x": "q", "model.sig": "old"})
	m, err := HashPath(dir, HashOptions{Ignore: []string{"model.sig"}, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range m.Resources {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "a/z a.txt b.txt" {
		t.Errorf("files %s", got)
	}
	root, err := m.Root()
	if err != nil || root != "9b6ddaf40eff4f3bedf7c0e2c30aa4c099853a2bfcf321f19eeba93a980f93c8" {
		t.Errorf("root %s, %v", root, err)
	}
	if m.Name != "m" {
		t.Errorf("name %q", m.Name)
	}
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, map[string]string{"model/a": "1", "model/b/c": "2", "one": "3"})
			key, err := GenerateKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			other, err := GenerateKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			private, err := key.PEM()
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, map[string]string{"k.pem": string(private), "k.pub": string(key.Public().PEM())})
			loaded, err := LoadPrivateKey(filepath.Join(dir, "k.pem"))
			if err != nil {
				t.Fatal(err)
			}
			public, err := LoadPublicKey(filepath.Join(dir, "k.pub"))
			if err != nil {
				t.Fatal(err)
			}
			if public.ID() != loaded.Public().ID() {
				t.Error("the public key is another one")
			}
			for _, name := range []string{"model", "one"} {
				path, file := filepath.Join(dir, name), filepath.Join(dir, name+".sig")
				m, err := HashPath(path, HashOptions{})
				if err != nil {
					t.Fatal(err)
				}
				s, err := m.Statement()
				if err != nil {
					t.Fatal(err)
				}
				b, err := Sign(s, loaded)
				if err != nil {
					t.Fatal(err)
				}
				data, err := b.JSON()
				if err != nil {
					t.Fatal(err)
				}
				if k, err := VerifyPath(path, file, data, 1, other.Public(), public); err != nil || k.ID() != public.ID() {
					t.Fatalf("%s: %v", name, err)
				}
				if _, err := VerifyPath(path, file, data, 1, other.Public()); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: another key: %v", name, err)
				}
				tampered := *b
				tampered.Envelope.Payload = []byte(strings.Replace(string(b.Envelope.Payload), `"sha256":"`, `"sha256":"0`, 1))
				data2, _ := tampered.JSON()
				if _, err := VerifyPath(path, file, data2, 1, public); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: another payload: %v", name, err)
				}
				write(t, dir, map[string]string{"one": "4", "model/a": "changed", "model/new": "5"})
				if err := os.Remove(filepath.Join(dir, "model/b/c")); err != nil && name == "model" {
					t.Fatal(err)
				}
				_, err = VerifyPath(path, file, data, 1, public)
				if !errors.Is(err, ErrSignature) {
					t.Fatalf("%s: changed files: %v", name, err)
				}
				if name == "model" {
					for _, want := range []string{"a has changed", "new is not among", "b/c is missing"} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("%v does not say that %s", err, want)
						}
					}
				}
				write(t, dir, map[string]string{"one": "3"})
			}
		})
	}
}

func TestLinksDoNotEscape(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"model/a": "1", "secret": "2"})
	if err := os.Symlink("../secret", filepath.Join(dir, "model", "l")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if _, err := HashPath(filepath.Join(dir, "model"), HashOptions{}); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link is not refused: %v", err)
	}
	m, err := HashPath(filepath.Join(dir, "model"), HashOptions{AllowSymlinks: true})
	if err != nil || len(m.Resources) != 2 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestManifestMustAgree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	m, err := HashPath(dir, HashOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := m.Statement()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ManifestOf(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(s *Statement){
		"another root":      func(s *Statement) { s.Subject[0].Digest["sha256"] = strings.Repeat("0", 64) },
		"no subject":        func(s *Statement) { s.Subject = nil },
		"another predicate": func(s *Statement) { s.PredicateType = ProvenanceType },
		"shards": func(s *Statement) {
			s.Predicate = []byte(strings.Replace(string(s.Predicate), `"files"`, `"shards"`, 1))
		},
		"another hash": func(s *Statement) { s.Predicate = []byte(strings.ReplaceAll(string(s.Predicate), `"sha256"`, `"md5"`)) },
		"no JSON":      func(s *Statement) { s.Predicate = json.RawMessage("[") },
	} {
		s, err := m.Statement()
		if err != nil {
			t.Fatal(err)
		}
		spoil(s)
		if _, err := ManifestOf(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseBundle(f *testing.F) {
	key, err := GenerateKey("ed25519")
	if err != nil {
		f.Fatal(err)
	}
	m := &Manifest{Name: "x", Resources: []Resource{{Name: ".", Algorithm: "sha256", Digest: strings.Repeat("ab", 32)}}}
	m.Rules = Rules{Method: "files", HashType: "sha256"}
	s, err := m.Statement()
	if err != nil {
		f.Fatal(err)
	}
	b, err := Sign(s, key)
	if err != nil {
		f.Fatal(err)
	}
	good, err := b.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","signatures":[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(data)
		if err != nil {
			return
		}
		b.KeyID()
		if s, _, err := b.Verify(key.Public()); err == nil {
			if _, err := ManifestOf(s); err != nil && s.PredicateType == ManifestType {
				t.Logf("signed, and yet: %v", err)
			}
		}
		if s, err := b.Statement(); err == nil {
			ManifestOf(s)
			ProvenanceOf(s)
		}
	})
}
