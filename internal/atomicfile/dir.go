package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is a folder being filled under a temporary name.
type Dir struct {
	path  string
	temp  string
	force bool
	done  bool
}

// CreateDir begins the folder path. If something stands there already it fails
// with an error that is fs.ErrExist, unless force is set and it is a folder: then
// Commit replaces it as a whole. An empty folder counts as free.
func CreateDir(path string, force bool) (*Dir, error) {
	path = filepath.Clean(path)
	if err := checkFreeDir(path, force); err != nil {
		return nil, err
	}
	temp := tempName(path)
	if err := os.Mkdir(temp, 0o777); err != nil {
		return nil, err
	}
	return &Dir{path: path, temp: temp, force: force}, nil
}

func checkFreeDir(path string, force bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s is there already and is not a folder: %w", path, fs.ErrExist)
	case force:
		return nil
	}
	names, err := os.ReadDir(path)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is there already (--force replaces it): %w", path, fs.ErrExist)
	}
	return err
}

// Path is the final name of the folder.
func (d *Dir) Path() string { return d.path }

// Join gives the present name of a file of the folder, for whoever writes it. Such
// a file need not be atomic by itself.
func (d *Dir) Join(elem ...string) string {
	return filepath.Join(append([]string{d.temp}, elem...)...)
}

// WriteFile writes a small file of the folder.
func (d *Dir) WriteFile(name string, data []byte) error {
	return WriteFile(d.Join(name), data, false)
}

// Commit syncs the folder and gives it its final name. After an error the
// temporary folder is gone and what was under the final name still is there.
func (d *Dir) Commit() error {
	if d.done {
		return fmt.Errorf("%s: %w", d.path, fs.ErrClosed)
	}
	err := d.commit()
	if err != nil {
		d.Abort()
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.done = true
	return syncFolder(filepath.Dir(d.path))
}

func (d *Dir) commit() error {
	err := filepath.WalkDir(d.temp, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return syncFolder(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := checkFreeDir(d.path, d.force); err != nil {
		return err
	}
	// An empty folder, or none, is replaced by the rename itself.
	if err := os.Rename(d.temp, d.path); err == nil {
		return nil
	} else if _, serr := os.Stat(d.path); serr != nil {
		return err
	}
	old := tempName(d.path)
	if err := os.Rename(d.path, old); err != nil {
		return err
	}
	if err := os.Rename(d.temp, d.path); err != nil {
		return errors.Join(err, os.Rename(old, d.path))
	}
	return os.RemoveAll(old)
}

// Abort removes the temporary folder. It does nothing after Commit or Abort.
func (d *Dir) Abort() {
	if d.done {
		return
	}
	d.done = true
	os.RemoveAll(d.temp)
}
