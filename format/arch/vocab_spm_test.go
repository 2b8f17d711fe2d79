package arch

import (
	"encoding/binary"
	"math"
	"os"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
)

// FuzzReadPieces: any bytes are pieces or an error.
func FuzzReadPieces(f *testing.F) {
	piece := append([]byte{0x0a, 1, 'a', 0x15}, binary.LittleEndian.AppendUint32(nil, math.Float32bits(-2))...)
	piece = append(piece, 0x18, 6)
	good := append([]byte{0x0a, byte(len(piece))}, piece...)
	for n := range good {
		f.Add(good[:n])
	}
	f.Add(good)
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		pieces, err := readPieces("x", b)
		if err == nil && len(pieces) > len(b) {
			t.Errorf("%d pieces in %d bytes", len(pieces), len(b))
		}
	})
}

func TestReadPieces(t *testing.T) {
	path := testutil.Shared(t, "oracle", "zoo", "llama", "hf", "tokenizer.model")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := readPieces(path, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(pieces) != 384 || pieces[1].text != "<s>" || pieces[4].text != "<0x00>" || pieces[4].typ != 6 {
		t.Errorf("%d pieces, %+v", len(pieces), pieces[:5])
	}
	if _, err := readPieces(path, b[:len(b)-1]); err == nil {
		t.Error("a file without its last byte was accepted")
	}
}
