package train

import (
	"fmt"
	"math"
	"strings"

	"github.com/graft-lora/graft/train/model"
)

// mergeTargets leaves those of the chosen matrices that an adapter can be trained for to
// be merged into. One that cannot is left out if no word of the targets but all-linear
// means it, and else an error.
func mergeTargets(m *model.Model, chosen []string, c *AdapterConfig) (kept, left []string, err error) {
	for _, name := range chosen {
		cannot := m.Mergeable(name)
		if cannot == nil {
			kept = append(kept, name)
			continue
		}
		for _, w := range c.Targets {
			if ok, err := matches(w, name); err == nil && ok && w != "all-linear" {
				return nil, nil, fmt.Errorf("train: target %q: %w", w, cannot)
			}
		}
		left = append(left, name)
	}
	if len(kept) == 0 {
		return nil, nil, fmt.Errorf("train: merge_aware: %w", m.Mergeable(chosen[0]))
	}
	return kept, left, nil
}

// mergeScale is the scale nearest to s that both forms of the adapter's file hold for this
// rank: GGUF has scale·rank as a float32. What is trained must be what is read again.
func mergeScale(s float32, rank int) float32 {
	through := func(s float32) float32 {
		return float32(float64(float32(float64(s)*float64(rank))) / float64(rank))
	}
	for range 4 {
		t := through(s)
		if t == s {
			break
		}
		s = t
	}
	return s
}

// mergeAware makes the adapter act as if merged, with the rounding of a seed.
func (l *lora) mergeAware(m *model.Model, seed uint64) error {
	for _, name := range l.names {
		if err := m.Mergeable(name); err != nil {
			return fmt.Errorf("train: merge_aware: %w", err)
		}
		p := l.adapter.Pairs[name]
		p.Scale = mergeScale(p.Scale, p.Rank())
	}
	l.adapter.Merge = &model.Merge{Seed: seed}
	return nil
}

// leftOut says which matrices are not trained since they cannot be merged into.
func (l *lora) leftOut() string {
	if len(l.left) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d matrices are left out, whose codes cannot be moved by whole steps: %s", len(l.left), strings.Join(moduleNames(l.left), ", "))
}

// mergedBytes is what the merged matrices take: those of all that are trained, or of a layer
// and the embedding and head when the base is streamed.
func (r *runner) mergedBytes(stream bool) int64 {
	if r.lora.adapter.Merge == nil {
		return 0
	}
	var all, ends int64
	for _, name := range r.lora.names {
		v := r.base.Source.View(name)
		for _, t := range v.From {
			all += t.Size
			if !strings.HasPrefix(name, "blk.") {
				ends += t.Size
			}
		}
	}
	for _, rows := range r.lora.adapter.Rows {
		all, ends = all+4*int64(len(rows.Data.Data)), ends+4*int64(len(rows.Data.Data))
	}
	if n := int64(len(r.base.Model.Layers)); stream && n > 0 {
		return ends + int64(math.Ceil(float64(all-ends)/float64(n)))
	}
	return all
}
