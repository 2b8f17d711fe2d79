package format

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

func TestRowBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    Type
		n    int64
		want int64 // -1: an error
	}{
		{F32, 3, 12}, {Q4_K, 512, 288}, {Q4_K, 100, -1}, {F4, 4, 2}, {F4, 3, -1}, {F6_E2M3, 4, 3},
		{F32, -1, -1}, {F32, math.MaxInt64, -1}, {Q8_0, math.MaxInt64 / 32 * 32, -1}, {Type(4), 32, -1}, {BF16, 0, 0},
	} {
		got, err := c.t.RowBytes(c.n)
		if c.want < 0 {
			if err == nil {
				t.Errorf("%v of %d: %d, want an error", c.t, c.n, got)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%v of %d: %d, %v; want %d", c.t, c.n, got, err, c.want)
		}
	}
}

func TestTypeNamesParse(t *testing.T) {
	t.Parallel()
	for typ, info := range typeTable {
		got, err := ParseType(info.Name)
		if err != nil || got != typ {
			t.Errorf("%s: %v, %v", info.Name, got, err)
		}
	}
	if _, err := ParseType("q4_2"); ExitStatus(err) != 2 {
		t.Errorf("an unknown type is %v", err)
	}
	if name, ok := ForeignTypeName(139); !ok || name != "iq4_k (ik_llama.cpp)" {
		t.Error(name, ok)
	}
}

func TestElements(t *testing.T) {
	t.Parallel()
	if n, err := Elements([]int64{3, 0, math.MaxInt64}); err != nil || n != 0 {
		t.Error(n, err)
	}
	if _, err := Elements([]int64{1 << 32, 1 << 32}); err == nil {
		t.Error("2^64 elements are no error")
	}
	if _, err := Elements([]int64{-1}); err == nil {
		t.Error("a negative dimension is no error")
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		0: nil,
		1: errors.New("x"),
		2: fmt.Errorf("in: %w", Usagef("x")),
		3: fmt.Errorf("in: %w", &CorruptError{Path: "f", Offset: 8, Field: "magic", Err: errors.New("x")}),
		4: Unsupported("x"),
		5: &CheckError{"x"},
	} {
		if got := ExitStatus(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	e := &CorruptError{Path: "f.gguf", Offset: 8, Field: "version", Err: errors.New("is 99")}
	if got := e.Error(); got != "f.gguf: corrupt file at byte 8 (0x8): version: is 99" {
		t.Error(got)
	}
}
