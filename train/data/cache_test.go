package data

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/graft-lora/graft/format"
)

func cachedSet() *Set {
	return &Set{
		Samples: []Sample{
			{IDs: []int32{1, 70000, 3}, Train: []bool{false, true, true}, Path: "p", Lines: []int{1}},
			{IDs: []int32{5, 6, 7, 8}, Train: []bool{false, true, false, true}, Docs: []int{0, 2}, Path: "p", Lines: []int{2, 9}},
			{IDs: []int32{4, 4}, Train: []bool{false, true}, Path: "p", Lines: []int{3}, Bad: true,
				Rejected:   &Sample{IDs: []int32{4, 5}, Train: []bool{false, true}, Path: "p"},
				Mismatched: &Sample{IDs: []int32{4, 9, 9}, Train: []bool{false, true, true}, Path: "p"}},
		},
		Stats: Stats{Records: 3, Samples: 3, Tokens: 11, TruncatedLines: []int{2}},
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	c := Cache{Dir: filepath.Join(t.TempDir(), "a", "b")}
	key := CacheKey("a", "bc")
	if other := CacheKey("ab", "c"); other == key {
		t.Error("two lists have one key")
	}
	if _, err := c.Load(key, "p"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	want := cachedSet()
	if err := c.Store(key, want); err != nil {
		t.Fatal(err)
	}
	got, err := c.Load(key, "p")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if Digest(got.Samples) != Digest(want.Samples) {
		t.Error("the digests differ")
	}
	// Every byte that is changed, and every end that is missing, is noticed.
	whole, err := os.ReadFile(c.path(key))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 0x10
		for _, bad := range [][]byte{b, whole[:i]} {
			if err := os.WriteFile(c.path(key), bad, 0o666); err != nil {
				t.Fatal(err)
			}
			var corrupt *format.CorruptError
			if _, err := c.Load(key, "p"); !errors.As(err, &corrupt) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
}

// TestCacheTrims removes what was used longest ago.
func TestCacheTrims(t *testing.T) {
	t.Parallel()
	c := Cache{Dir: t.TempDir()}
	begin := time.Now().Add(-time.Hour)
	var keys []string
	for i := range cacheFiles + 3 {
		key := CacheKey(string(rune('a' + i)))
		keys = append(keys, key)
		if err := c.Store(key, cachedSet()); err != nil {
			t.Fatal(err)
		}
		at := begin.Add(time.Duration(i) * time.Second)
		if err := os.Chtimes(c.path(key), at, at); err != nil {
			t.Fatal(err)
		}
		if i == 5 { // it is used again
			if _, err := c.Load(keys[0], "p"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, key := range keys {
		_, err := os.Stat(c.path(key))
		if gone := errors.Is(err, fs.ErrNotExist); gone != (i >= 1 && i <= 3) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}
