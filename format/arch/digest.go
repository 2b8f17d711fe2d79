package arch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/graft-lora/graft/format"
)

// TensorDigest is the SHA-256 of a view of m, in hexadecimal: of its type, its shape and
// its bytes in GGUF's order, not of its name or place. So a matrix of a Hugging Face folder has the
// digest of the one in the GGUF file that was made of it in the same type, its rows permuted or not.
// Where the bytes of a view are none that are stored (a norm with one added), it is that of
// the stored tensors behind it. It is read once and remembered, however many
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
	if raw, ok := v.Rows.(format.RawReader); ok {
		fmt.Fprintf(h, "%v %v\n", raw.RawType(), v.Shape)
		if err := hashRows(h, raw); err != nil {
			return "", fmt.Errorf("%s: tensor %s: %w", m.Path, name, err)
		}
	} else {
		for _, t := range v.From {
			fmt.Fprintf(h, "%v %v\n", t.Type, t.Shape)
			if err := t.Copy(context.Background(), h); err != nil {
				return "", err
			}
		}
	}
	for _, t := range v.From {
		t.Release() // a base larger than memory stays on disk
	}
	d := hex.EncodeToString(h.Sum(nil))
	m.digests.Store(name, d)
	return d, nil
}

// hashRows adds the stored bytes of all rows to h.
func hashRows(h hash.Hash, raw format.RawReader) error {
	rows, cols := raw.Dims()
	size, err := raw.RawType().RowBytes(cols)
	if err != nil || size == 0 {
		return err
	}
	n := max(1, (1<<20)/size)
	buf := make([]byte, min(n, max(rows, 0))*size)
	for row := int64(0); row < rows; row += n {
		b := buf[:min(n, rows-row)*size]
		if err := raw.ReadRaw(b, row); err != nil {
			return err
		}
		h.Write(b)
	}
	return nil
}
