package arch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// TensorDigest is the SHA-256 of the stored tensors behind a view of m, in hexadecimal: of
// their types, shapes and bytes, not of their names or places. Views of the same
// tensors of two files have the same one. It is read once and remembered, however many
// adapters ask. It is an error if m has no such tensor. Safe for concurrent use.
func (m *Model) TensorDigest(name string) (string, error) {
	if d, ok := m.digests.Load(name); ok {
		return d.(string), nil
	}
	v := m.View(name)
	if v == nil {
		return "", fmt.Errorf("%s has no tensor %s", m.Path, name)
	}
	h := sha256.New()
	for _, t := range v.From {
		fmt.Fprintf(h, "%v %v\n", t.Type, t.Shape)
		if err := t.Copy(context.Background(), h); err != nil {
			return "", err
		}
		t.Release() // a base larger than memory stays on disk
	}
	d := hex.EncodeToString(h.Sum(nil))
	m.digests.Store(name, d)
	return d, nil
}
