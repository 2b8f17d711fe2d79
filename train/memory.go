package train

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train/model"
)

// usage is the memory of this process in bytes.
type usage struct{ rss, peak int64 }

// memory reads what Linux says of this process; zeros elsewhere.
func memory() (u usage) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return u
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb int64
		if n, _ := fmt.Sscanf(s.Text(), "VmHWM: %d kB", &kb); n == 1 {
			u.peak = kb << 10
		} else if n, _ := fmt.Sscanf(s.Text(), "VmRSS: %d kB", &kb); n == 1 {
			u.rss = kb << 10
		}
	}
	return u
}

// runtimeMemory is what the program itself takes: its text, stacks, the panels of
// products. slack is what the collector lets lie beside what is allocated.
const (
	runtimeMemory = 28 << 20
	slack         = 0.02
)

// forecast is the peak of resident memory that the run is going to have with opt in
// passes of shape s: the base's file, which counts as far as it is mapped and read,
// what is allocated now, the gradients and the optimizer's state among it, and the
// buffers of a pass.
func (r *runner) forecast(s model.Shape, opt model.Options, allocated int64) int64 {
	s.DoRA = r.lora.dora()
	for _, rows := range r.lora.adapter.Rows {
		s.Rows = len(rows.IDs)
	}
	allocated += r.base.Model.PassMemory(s, r.ranks(), opt)
	return runtimeMemory + r.mapped(opt.Stream) + r.mergedBytes(opt.Stream) + allocated + int64(slack*float64(allocated))
}

// allocated is what is allocated now.
func allocated() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// mapped is how much of the base's file is resident.
func (r *runner) mapped(stream bool) int64 {
	if r.cfg.Hold != "" {
		return 0 // read once, then held
	}
	return r.base.mapped(stream)
}

// mapped is how much of a file is resident in passes: all of it, or when layers are
// streamed some of them, the embedding and the head.
func (b *Base) mapped(stream bool) int64 {
	var layers, rest int64
	for _, v := range b.Source.Views {
		for _, t := range v.From {
			if strings.HasPrefix(v.Name, "blk.") {
				layers += t.Size
			} else {
				rest += t.Size
			}
		}
	}
	if n := int64(len(b.Model.Layers)); stream && n > 0 {
		layers = min(layers, streamed*layers/n)
	}
	return layers + rest
}

// streamed is how many layers are resident at a time when they are streamed.
const streamed = 3

// fitted is how a run is made to fit in memory. None of it changes a byte of its result.
type fitted struct {
	opt    model.Options
	limit  int         // tokens run at once
	shape  model.Shape // of the largest pass
	memory int64       // that it is going to take
	text   string
}

// evaluated is how many tokens are run at once in evaluations: what has room where
// training has.
func (f *fitted) evaluated() int { return min(f.limit, f.shape.Tokens) }

const (
	// smallHead is the memory of logits where little is given.
	smallHead = 4 << 20
	// decoding is how many tokens' products take as long as decoding the weights does, about.
	decoding = 40
	// margin, in percent, is left of the memory given: forecasts are that exact.
	margin = 6
)

// margined is need with the margin that memory given must have.
func margined(need int64) int64 { return need + need*margin/100 }

// smaller are the ways to run that keep nothing between a pass's halves, from the fastest to
// the one that takes least memory.
func (c *Config) smaller() (list []model.Options) {
	for _, stream := range []bool{false, true} {
		for _, head := range []int64{c.HeadMemory, smallHead} {
			opt := c.modelOptions()
			opt.KeepLayers, opt.Stream, opt.HeadMemory = 0, stream, head
			list = append(list, opt)
		}
	}
	return list
}

// choose says what a pass is and how much is kept between its halves, so that the run
// stays under the memory that it was given and is as fast as it can be there. held is
// what is allocated before the first pass.
func (r *runner) choose(held int64) (fitted, error) {
	c, a := &r.cfg, r.ahead
	whole := c.limit()
	if c.Memory == 0 {
		opt := c.modelOptions()
		shape := a.shape(whole)
		return fitted{opt, whole, shape, r.forecast(shape, opt, held), ""}, nil
	}
	// Smaller passes decode the weights more often, but leave room for activations.
	one := a.shape(1).Tokens // the longest sample
	var limits []int
	for limit := whole; limit > one; limit /= 2 {
		limits = append(limits, limit)
	}
	limits = append(limits, one)
	shapes := make([]model.Shape, len(limits))
	for i, limit := range limits {
		shapes[i] = a.shape(limit)
	}
	layers := len(r.base.Model.Layers)
	fits := func(i int, opt model.Options) bool { return margined(r.forecast(shapes[i], opt, held)) <= c.Memory }
	ways := c.smaller()
	for _, small := range ways {
		best, cost := -1, 0.
		var chosen model.Options
		for i, limit := range limits {
			opt := small
			if !fits(i, opt) {
				continue
			}
			opt.KeepLayers = layers
			for opt.KeepLayers > 0 && !fits(i, opt) {
				opt.KeepLayers--
			}
			if all := opt; opt.KeepLayers < layers {
				all.KeepAttention = true
				if fits(i, all) {
					opt = all
				}
			}
			again := decoding
			if small.Stream {
				again *= 100 // they are read from disk
			}
			each := r.base.Model.Costs(r.ranks(), opt, true).Of([]int{1}, 1).Total() * (1 + float64(again)/float64(min(limit, shapes[i].Tokens)))
			if best < 0 || each < cost {
				best, cost, chosen = i, each, opt
			}
		}
		if best < 0 {
			continue
		}
		f := fitted{chosen, limits[best], shapes[best], r.forecast(shapes[best], chosen, held), ""}
		f.text = fmt.Sprintf("%d of %d layers keep their activations, the others run again; ", chosen.KeepLayers, layers)
		if f.limit < whole {
			f.text += fmt.Sprintf("%d tokens are run at once in place of %d; ", f.limit, whole)
		}
		if chosen.Stream {
			f.text += "the base is read again for every pass; "
		}
		return f, nil
	}
	need := margined(r.forecast(shapes[len(shapes)-1], ways[len(ways)-1], held))
	return fitted{}, format.Usagef("the run needs about %d MB and is given %d: a shorter context or a lower rank needs less", need/1e6, c.Memory/1e6)
}

// fit makes the model what choose chooses.
func (r *runner) fit() (err error) {
	r.ahead = r.lookAhead()
	if r.fitted, err = r.choose(allocated()); err != nil || r.cfg.Memory == 0 {
		return err
	}
	r.cfg.tokensAtOnce = r.fitted.limit
	r.base.Model.Close()
	r.base.Model, err = model.New(r.base.Source, r.fitted.opt)
	return err
}
