package train

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// TestEvents reads the records back: lengths and checksums hold, and the values are there.
func TestEvents(t *testing.T) {
	t.Parallel()
	// The checksum of RFC 3720, B.4: 32 zero bytes have CRC-32C 8a9136aa.
	if c := maskedCRC(make([]byte, 32)) - 0xa282ead8; c<<15|c>>17 != 0x8a9136aa {
		t.Errorf("checksum %x", c)
	}
	lr := 0.5
	b := Events([]LogLine{{Step: 1, Loss: 2.5, LR: &lr, Router: 1.5}, {Step: 300, Eval: &EvalResult{Loss: 1.25, Preferences: &PreferenceResult{Accuracy: 1}}}}, time.Unix(100, 0))
	var records [][]byte
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		if binary.LittleEndian.Uint32(b[8:]) != maskedCRC(b[:8]) || binary.LittleEndian.Uint32(b[12+n:]) != maskedCRC(b[12:12+n]) {
			t.Fatal("a checksum is wrong")
		}
		records, b = append(records, b[12:12+n]), b[16+n:]
	}
	if len(records) != 3 || !bytes.HasSuffix(records[0], []byte("\x1a\x0dbrain.Event:2")) {
		t.Fatalf("%d records, the first %q", len(records), records[0])
	}
	value := func(tag string, x float32) []byte {
		v := append([]byte{0x0a, byte(len(tag))}, tag...)
		return binary.LittleEndian.AppendUint32(append(v, 0x15), math.Float32bits(x))
	}
	for i, want := range [][]byte{value("train/loss", 2.5), value("train/lr", 0.5), value("train/router_loss", 1.5)} {
		if !bytes.Contains(records[1], want) {
			t.Errorf("value %d is missing in %q", i, records[1])
		}
	}
	for i, want := range [][]byte{value("eval/loss", 1.25), value("eval/accuracy", 1), {2 << 3, 0xac, 0x02}} {
		if !bytes.Contains(records[2], want) {
			t.Errorf("value %d is missing in %q", i, records[2])
		}
	}
}
