package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// only checks that dir holds exactly the named entries.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %q, want %q", got, names)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	f, err := Create(path, false)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("graft"), 1<<19)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is there before Commit")
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	only(t, dir, "out")
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("other bytes, %v", err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	a, _ := os.Stat(path)
	b, _ := os.Stat(plain)
	if a.Mode() != b.Mode() {
		t.Errorf("mode %v, other new files have %v", a.Mode(), b.Mode())
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := WriteFile(path, []byte("old"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	if err := WriteFile(path, []byte("new"), true); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "new" {
		t.Errorf("%q", got)
	}
	// One that appears between Create and Commit is not replaced either.
	late := filepath.Join(dir, "late")
	f, err := Create(late, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(late, []byte("other"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that appeared meanwhile: %v", err)
	}
	if err := WriteFile(dir, nil, true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a folder: %v", err)
	}
	only(t, dir, "late", "out")
}

// failing is a file whose n-th call fails.
type failing struct {
	file
	left *int
}

var errBroken = errors.New("broken")

func (f failing) call() error {
	if *f.left--; *f.left < 0 {
		return errBroken
	}
	return nil
}

func (f failing) Write(p []byte) (int, error) {
	if err := f.call(); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f failing) Sync() error { return errors.Join(f.call(), f.file.Sync()) }

func (f failing) Close() error { return errors.Join(f.call(), f.file.Close()) }

// TestNoSync: without waiting for the disk, files and folders appear whole all the same.
func TestNoSync(t *testing.T) {
	defer noSync.Store(false)
	NoSync()
	real := openTemp
	defer func() { openTemp = real }()
	openTemp = func(path string) (file, error) {
		f, err := real(path)
		return unsynced{f, t}, err
	}
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "out"), false)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("graft"), writeBehind/2)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Path()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	d, err := CreateDir(filepath.Join(dir, "folder"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.WriteFile("in", []byte("x")), d.Commit()); err != nil {
		t.Fatal(err)
	}
	only(t, dir, "folder", "out")
}

// unsynced is a file that must not be synced.
type unsynced struct {
	file
	t *testing.T
}

func (f unsynced) Sync() error {
	f.t.Error("synced")
	return nil
}

// TestFailing lets each call to the system fail in turn: nothing must be left.
func TestFailing(t *testing.T) {
	real := openTemp
	defer func() { openTemp = real }()
	for n := 0; ; n++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "out")
		left := n
		openTemp = func(path string) (file, error) {
			f, err := real(path)
			return failing{f, &left}, err
		}
		f, err := Create(path, false)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			f.Write(make([]byte, bufferSize))
		}
		f.Write([]byte("end"))
		err = f.Commit()
		if left >= 0 {
			if err != nil {
				t.Fatal(err)
			}
			only(t, dir, "out")
			if n < 5 {
				t.Errorf("only %d calls were made to fail", n)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Errorf("call %d: error %v", n, err)
		}
		if again := f.Commit(); !errors.Is(again, errBroken) {
			t.Errorf("call %d: second Commit: %v", n, again)
		}
		only(t, dir)
	}
}

// TestFileTooLarge runs itself under a limit on the size of files, which fails
// like a full disk in the middle of a write.
func TestFileTooLarge(t *testing.T) {
	if dir := os.Getenv("GRAFT_TEST_LIMIT"); dir != "" {
		f, err := Create(filepath.Join(dir, "out"), false)
		if err != nil {
			t.Fatal(err)
		}
		if f.Reserve(1<<20) == nil {
			for range 100 {
				if _, err := f.Write(make([]byte, 1<<16)); err != nil {
					break
				}
			}
		}
		if err := f.Commit(); err == nil {
			t.Fatal("the file was written")
		} else {
			t.Log(err)
		}
		return
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to set a limit with")
	}
	dir := t.TempDir()
	c := exec.Command(sh, "-c", `ulimit -f 256 && exec "$0" -test.run '^TestFileTooLarge$' -test.v`, os.Args[0])
	c.Env = append(os.Environ(), "GRAFT_TEST_LIMIT="+dir)
	out, err := c.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("too large")) {
		t.Errorf("%v\n%s", err, out)
	}
	only(t, dir)
}

func TestDir(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "model")
	fill := func(force bool, text string) error {
		d, err := CreateDir(path, force)
		if err != nil {
			return err
		}
		defer d.Abort()
		if err := d.WriteFile("a", []byte(text)); err != nil {
			return err
		}
		if err := os.Mkdir(d.Join("sub"), 0o777); err != nil {
			return err
		}
		return d.Commit()
	}
	if err := fill(false, "1"); err != nil {
		t.Fatal(err)
	}
	if err := fill(false, "2"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing folder: %v", err)
	}
	if err := fill(true, "3"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(path, "a")); string(got) != "3" {
		t.Errorf("%q", got)
	}
	only(t, root, "model")
	only(t, path, "a", "sub")

	d, err := CreateDir(path, true)
	if err != nil {
		t.Fatal(err)
	}
	d.Abort()
	if err := d.Commit(); err == nil {
		t.Error("Commit after Abort")
	}
	only(t, root, "model")

	empty := filepath.Join(root, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	path = empty
	if err := fill(false, "4"); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	path = filepath.Join(root, "model", "a")
	if err := fill(true, "5"); err == nil {
		t.Error("a file was replaced by a folder")
	}
	only(t, root, "empty", "model")
}
