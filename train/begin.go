package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// ResumeConfig gives the settings that the run in dir was begun with, whose Output is dir.
func ResumeConfig(dir string) (Config, error) {
	c, err := LoadConfig(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s holds no run to resume: %w", dir, err)
	}
	c.Output = dir
	return c, err
}

// begin looks at the output folder: what to go on from, or an empty folder.
func begin(c *Config, mode Mode, told func(Progress)) (*state, error) {
	// transformers would take what is written there for a part of the model.
	if base, err := os.Stat(c.Base); err == nil {
		if out, err := os.Stat(c.Output); err == nil && os.SameFile(base, out) {
			return nil, format.Usagef("%s is the base's own folder: the adapter goes into another", c.Output)
		}
	}
	config := filepath.Join(c.Output, ConfigFile)
	_, err := os.Stat(config)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if there && mode == Fresh {
		return nil, fmt.Errorf("%s holds a run already: resume it, or replace it: %w", c.Output, fs.ErrExist)
	}
	if mode == Resume {
		if !there {
			return nil, fmt.Errorf("%s holds no run to resume: %w", c.Output, fs.ErrNotExist)
		}
		if err := removeTemporary(c.Output, filepath.Join(c.Output, "checkpoints")); err != nil {
			return nil, err
		}
		s, damaged, err := latest(c.Output)
		for _, d := range damaged {
			told(Progress{Phase: "reading", Note: d + " is damaged and passed over"})
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // killed before its first checkpoint: begin again
		}
		if err != nil {
			return nil, err
		}
		if names := differs(s.Config, *c); len(names) > 0 {
			return nil, fmt.Errorf("%s was begun with other settings, which cannot change on the way: %v", c.Output, names)
		}
		return s, nil
	}
	if err := os.MkdirAll(c.Output, 0o777); err != nil {
		return nil, err
	}
	if err := removeCheckpoints(c.Output, mode); err != nil {
		return nil, err
	}
	for _, name := range runFiles {
		path := filepath.Join(c.Output, name)
		if _, err := os.Stat(path); err == nil && mode != Replace {
			return nil, fmt.Errorf("%s is there already: %w", path, fs.ErrExist)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if there { // the tokenizer of a run with new tokens would give them to the one that takes its place
		for _, name := range checkpoint.TokenizerFiles {
			if err := os.Remove(filepath.Join(c.Output, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	return nil, atomicfile.WriteFile(config, b, true)
}

// removeCheckpoints removes the checkpoints of an earlier run, if mode allows it, and
// nothing else that may stand in their folder.
func removeCheckpoints(dir string, mode Mode) error {
	list, err := checkpoints(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	if mode != Replace {
		return fmt.Errorf("%s is there already: %w", list[0], fs.ErrExist)
	}
	for _, path := range append(list, bestPath(dir)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return removeTemporary(dir, filepath.Join(dir, "checkpoints"))
}

// removeTemporary removes the temporary files that a killed run leaves in its folders.
func removeTemporary(dirs ...string) error {
	for _, dir := range dirs {
		list, err := filepath.Glob(filepath.Join(escape(dir), ".*.tmp"))
		if err != nil {
			return err
		}
		for _, path := range list {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
