package adapter

import (
	"fmt"
	"strconv"

	"github.com/graft-lora/graft/format"
)

// An adapter that was trained for the file that it will be merged into says so in its
// metadata: of the safetensors or GGUF file by these keys, and for people and programs that
// read adapter_config.json in an object there.
const (
	roundingKey      = "graft.merge_aware.rounding"
	seedKey          = "graft.merge_aware.seed"
	mergeAwareConfig = "graft_merge_aware"

	// ditherRounding is the rounding of quant.Dither, the only one there is.
	ditherRounding = "dither-1"
)

// MergeAware says how an adapter wants to be merged that was trained for it.
type MergeAware struct {
	Seed uint64 // of the rounding, quant.Dither
}

// Metadata is what [WriteOptions].Extra says of such an adapter.
func (m MergeAware) Metadata() map[string]string {
	return map[string]string{roundingKey: ditherRounding, seedKey: strconv.FormatUint(m.Seed, 10)}
}

// MergeAware tells whether a was trained to be merged, and how. A rounding that is not known
// here is a [format.UnsupportedError].
func (a *Adapter) MergeAware() (m MergeAware, ok bool, err error) {
	rounding, ok := a.Meta[roundingKey]
	if !ok {
		return m, false, nil
	}
	if rounding != ditherRounding {
		return m, false, format.Unsupported("%s was trained for a merge with rounding %q, which this graft does not have", a.Path, rounding)
	}
	if m.Seed, err = strconv.ParseUint(a.Meta[seedKey], 10, 64); err != nil {
		return m, false, &format.CorruptError{Path: a.Path, Offset: -1, Field: seedKey, Err: fmt.Errorf("%q is no seed", a.Meta[seedKey])}
	}
	return m, true, nil
}

// mergeAware puts what the configuration says of merging into meta, where the matrices' file
// does not say it itself.
func (c *peftConfig) mergeAware(meta map[string]string) {
	v, ok := c.values[mergeAwareConfig].(map[string]any)
	if _, said := meta[roundingKey]; !ok || said {
		return
	}
	meta[roundingKey], _ = v["rounding"].(string)
	meta[seedKey], _ = v["seed"].(string)
}

// putMergeAware puts what the metadata says of merging into a configuration.
func putMergeAware(c map[string]any, meta map[string]string) {
	if r, ok := meta[roundingKey]; ok {
		c[mergeAwareConfig] = map[string]any{"rounding": r, "seed": meta[seedKey], "note": "trained to be merged by graft merge; unmerged it is not what was trained"}
	}
}
