package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/train/data"
)

// Dataset is one file of several that a run learns from.
type Dataset struct {
	Path string `json:"path" yaml:"path"`
	// Weight is how often each of its samples comes in an epoch: 2 is twice, 0.5 every
	// other one, and others in the next epoch. 0 means 1.
	Weight float64 `json:"weight,omitempty" yaml:"weight,omitempty"`
	// Fields are names of fields of this file, over those of the run.
	Fields data.Fields `json:"fields,omitzero" yaml:"fields,omitempty"`
}

// ParseDataset reads PATH or PATH=WEIGHT. What follows the last "=" is a weight only if
// it is a number.
func ParseDataset(s string) Dataset {
	if i := strings.LastIndexByte(s, '='); i > 0 {
		if w, err := strconv.ParseFloat(s[i+1:], 64); err == nil {
			return Dataset{Path: s[:i], Weight: w}
		}
	}
	return Dataset{Path: s}
}

// SetData makes datasets what the run learns from, in place of all that it had.
func (c *Config) SetData(list ...Dataset) {
	c.Data, c.Datasets = "", nil
	if len(list) == 1 && (list[0].Weight == 0 || list[0].Weight == 1) && list[0].Fields == (data.Fields{}) {
		c.Data = list[0].Path
		return
	}
	c.Datasets = list
}

// sources are the files that the run learns from, with the settings of each filled in.
func (c *Config) sources() []Dataset {
	var list []Dataset
	if c.Data != "" {
		list = append(list, Dataset{Path: c.Data})
	}
	list = append(list, c.Datasets...)
	for i := range list {
		s := &list[i]
		if s.Weight == 0 {
			s.Weight = 1
		}
		s.Fields = s.Fields.Over(c.Fields)
	}
	return list
}

// checkData says which of the files cannot be learned from as it is given.
func (c *Config) checkData() error {
	for _, d := range c.sources() {
		if d.Path == "" || !(d.Weight > 0 && d.Weight <= 1000) {
			return fmt.Errorf("train: data set %q has weight %v: it needs a path, and a weight above 0 and up to 1000", d.Path, d.Weight)
		}
	}
	return nil
}

// withoutPaths is a list of data sets as far as the settings are concerned.
func withoutPaths(list []Dataset) (out []Dataset) {
	for _, d := range list {
		d.Path = ""
		out = append(out, d)
	}
	return out
}

// title names the data in a heading.
func (c *Config) title() string {
	list := c.sources()
	name := filepath.Base(list[0].Path)
	if len(list) > 1 {
		name += fmt.Sprintf(" and %d more", len(list)-1)
	}
	return name
}

// DatasetStats say what became of one file of several.
type DatasetStats struct {
	Dataset
	Stats    data.Stats `json:"stats"`
	TrainOn  int        `json:"train_sequences"`
	PerEpoch int        `json:"epoch_sequences"` // sequences that come in an epoch, by the weight
	Held     int        `json:"held_out_sequences"`
}

// NoDataCache as a Config's DataCache keeps no samples.
const NoDataCache = "none"

// leastCached is the size of a file, in bytes, from which on its samples are kept where
// the run does not say where: making them from a small file is as quick as reading them.
const leastCached = 1 << 20

// cacheVersion changes with what the same key would stand for.
const cacheVersion = "1"

// cacheOf is where the samples of a file of that size are kept; nil if they are not.
func (c *Config) cacheOf(size int64) *data.Cache {
	switch c.DataCache {
	case NoDataCache:
		return nil
	case "":
		dir, err := os.UserCacheDir()
		if err != nil || size < leastCached {
			return nil
		}
		return &data.Cache{Dir: filepath.Join(dir, "graft", "samples")}
	}
	return &data.Cache{Dir: c.DataCache}
}

// readSet makes the samples of a file, or takes them from the cache, where they stand
// under the digests of all they are made of. That the cache cannot be written, or is
// damaged, costs time only.
func (r *runner) readSet(enc *data.Encoder, file FileDigest, f data.Fields) (*data.Set, error) {
	cache := r.cfg.cacheOf(file.Size)
	if cache == nil {
		return ReadExamples(enc, r.objective.Objective, file.Path, f)
	}
	settings, err := json.Marshal(struct {
		Options data.Options
		Fields  data.Fields
		Context int
		Kind    int
		Stops   []int32
	}{enc.Options, f, enc.Context, int(r.objective.Kind()), r.base.stops})
	if err != nil {
		return nil, err
	}
	key := data.CacheKey(cacheVersion, Version(), file.SHA256, tokenizerDigest(r.base.Tokenizer), r.base.TemplateSource, string(settings))
	set, err := cache.Load(key, file.Path)
	if err == nil {
		return set, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		r.told(Progress{Phase: "reading", Note: fmt.Sprintf("%v; it is made again", err)})
	}
	if set, err = ReadExamples(enc, r.objective.Objective, file.Path, f); err != nil {
		return nil, err
	}
	if err := cache.Store(key, set); err != nil && r.cfg.DataCache != "" {
		r.told(Progress{Phase: "reading", Note: fmt.Sprintf("the samples are not kept: %v", err)})
	}
	return set, nil
}

// readData makes the samples of all sources, and holds out a part of each if that is wanted.
func (r *runner) readData(enc *data.Encoder) error {
	c := &r.cfg
	sources := c.sources()
	var files []FileDigest
	for _, s := range sources {
		list, err := digestFiles(s.Path)
		if err != nil {
			return err
		}
		files = append(files, list...)
	}
	r.inputs["data"] = files
	for i, s := range sources {
		set, err := r.readSet(enc, files[i], s.Fields)
		if err != nil {
			return err
		}
		if err := enc.Check(set, s.Path); err != nil {
			return err
		}
		train, held := set.Samples, []data.Sample(nil)
		if c.HeldOut == "" && c.HeldOutPart > 0 {
			train, held = data.Split(train, c.HeldOutPart, c.Seed)
		}
		part := data.Part{Samples: len(train), Weight: s.Weight}
		r.parts = append(r.parts, part)
		r.perEpoch += part.PerEpoch()
		r.train, r.held = append(r.train, train...), append(r.held, held...)
		r.datasets = append(r.datasets, DatasetStats{Dataset: s, Stats: set.Stats, TrainOn: len(train), PerEpoch: part.PerEpoch(), Held: len(held)})
		for _, note := range set.Stats.Notes() {
			r.notes = append(r.notes, s.Path+": "+note)
			r.told(Progress{Phase: "reading", Note: s.Path + ": " + note})
		}
	}
	r.stats = r.datasets[0].Stats
	for _, d := range r.datasets[1:] {
		r.stats = r.stats.And(d.Stats)
	}
	return nil
}

// several are the sources for a record, if there is more to say of them than of one file.
func (r *runner) several() []DatasetStats {
	if len(r.datasets) == 1 && r.datasets[0].Weight == 1 {
		return nil
	}
	return r.datasets
}

// ReadData makes the samples that a run with c would learn from, those held out among
// them, each file's once.
func ReadData(b *Base, c Config) ([]data.Sample, error) {
	r, err := newRunner(b, c, nil)
	if err != nil {
		return nil, err
	}
	r.cfg.HeldOutPart = 0
	enc, err := r.encoder()
	if err != nil {
		return nil, err
	}
	var all []data.Sample
	for _, s := range r.cfg.sources() {
		set, err := ReadExamples(enc, r.objective.Objective, s.Path, s.Fields)
		if err != nil {
			return nil, err
		}
		all = append(all, set.Samples...)
	}
	return all, nil
}
