package atomicfile

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk writes two megabytes to a disk of one, with and without asking for
// the room first.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a full disk needs a small file system, which only root can mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, reserved := range []bool{false, true} {
		f, err := Create(filepath.Join(dir, "out"), false)
		if err != nil {
			t.Fatal(err)
		}
		if reserved {
			if err := f.Reserve(2 << 20); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Reserve: %v", err)
			}
		}
		for range 32 {
			f.Write(make([]byte, 1<<16))
		}
		if err := f.Commit(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Commit: %v", err)
		}
		only(t, dir)
	}
	// The room is free again.
	if err := WriteFile(filepath.Join(dir, "out"), make([]byte, 1<<19), false); err != nil {
		t.Error(err)
	}
	only(t, dir, "out")
}
