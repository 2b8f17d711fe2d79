// Package testutil holds what tests of several packages need.
package testutil

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Shared returns the path of elem under the project's shared folder, which stands
// beside the checkout (or where GRAFT_SHARED says). The test is skipped, saying what
// it missed, when the folder is absent; a file missing inside it fails the test.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("GRAFT_SHARED")
	if root == "" {
		root = filepath.Join(Root(), "..", "shared")
	}
	if _, err := os.Stat(root); err != nil {
		t.Skipf("the shared folder is absent (%s): %s not compared with %s", root, t.Name(), filepath.Join(elem...))
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Root is the folder of the module.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		panic("testutil: no caller")
	}
	return filepath.Join(filepath.Dir(file), "..", "..")
}
