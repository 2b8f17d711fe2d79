package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFullDisk lets a run fill its disk with its second checkpoint: that one is not
// there, the first is whole, and with more room the run goes on from it to the same end.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	t.Parallel()
	c := smallRun(t)
	c.SaveEvery, c.HeldOutPart, c.KeepBest, c.Patience, c.Steps = 2, 0, false, 0, 6
	c.Output = filepath.Join(t.TempDir(), "run")
	mustRun(t, c, Fresh)
	want := outcomeOf(t, c.Output)
	list, err := checkpoints(c.Output)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	st, err := os.Stat(list[0])
	if err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	room := func(bytes int64, flags uintptr) error {
		return syscall.Mount("tmpfs", disk, "tmpfs", flags, fmt.Sprintf("size=%d", bytes))
	}
	if err := room(st.Size()*3/2+1<<16, 0); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	c.Output = filepath.Join(disk, "run")
	if _, err := Run(context.Background(), c, Fresh, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(c.Output, "checkpoints", "*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], "step-00000002.ckpt") {
		t.Errorf("left on the full disk: %v, %v", left, err)
	}
	if err := room(st.Size()*8+1<<20, syscall.MS_REMOUNT); err != nil {
		t.Fatal(err)
	}
	mustRun(t, c, Resume)
	outcomeOf(t, c.Output).mustBe(t, want, "after the disk was full")
}
