package main

import (
	"fmt"
	"math"
	"regexp"

	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/merge"
)

func describePair(p *adapter.Pair) (pairInfo, error) {
	name := p.Module
	if name == "" {
		name = p.Target
	}
	if p.Expert >= 0 {
		name = fmt.Sprintf("%s, expert %d", name, p.Expert)
	}
	s, err := merge.PairSpectrum(p)
	if err != nil {
		return pairInfo{}, fmt.Errorf("%s: %w", name, err)
	}
	info := pairInfo{Name: name, Rows: p.B.Rows, Cols: p.A.Cols, Rank: p.Rank, Scale: p.Scale, DoRA: p.Magnitude != nil}
	info.Norm, info.Effective = merge.EffectiveRank(s)
	info.RMS = info.Norm / math.Sqrt(float64(info.Rows)*float64(info.Cols))
	return info, nil
}

var layerNumber = regexp.MustCompile(`\.\d+\.`)

// groupPairs joins pairs that differ in their layer only: the norm of all together,
// the other numbers as means.
func groupPairs(pairs []pairInfo) []pairInfo {
	var out []pairInfo
	index := map[string]int{}
	var counts []int
	for _, p := range pairs {
		key := fmt.Sprint(layerNumber.ReplaceAllString(p.Name, ".*."), p.Rows, p.Cols, p.Rank, p.Scale)
		i, ok := index[key]
		if !ok {
			index[key] = len(out)
			p.Name = layerNumber.ReplaceAllString(p.Name, ".*.")
			p.Norm *= p.Norm
			out, counts = append(out, p), append(counts, 1)
			continue
		}
		g := &out[i]
		counts[i]++
		g.Norm += float64(p.Norm * p.Norm)
		g.RMS += p.RMS
		g.Effective += p.Effective
		g.Ratio += p.Ratio
	}
	for i := range out {
		n := float64(counts[i])
		out[i].Norm = math.Sqrt(out[i].Norm)
		out[i].RMS /= n
		out[i].Effective /= n
		out[i].Ratio /= n
		if counts[i] > 1 {
			out[i].Name = fmt.Sprintf("%s (%d)", out[i].Name, counts[i])
		}
	}
	return out
}
