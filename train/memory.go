package train

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train/data"
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
// products, the collector's slack.
const runtimeMemory = 24 << 20

// forecast is the peak of resident memory that the run is going to have with opt:
// the base's file, which counts as far as it is mapped and read, what is allocated
// now, the gradients and the optimizer's state among it, and the buffers of a pass.
func (r *runner) forecast(opt model.Options) int64 {
	total := runtimeMemory + r.mapped(opt.Stream)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	ranks := map[string]int{}
	for _, n := range r.lora.names {
		ranks[n] = r.lora.adapter.Pairs[n].Rank()
	}
	return total + r.mergedBytes(opt.Stream) + int64(m.HeapAlloc) + r.base.Model.PassMemory(r.shape(), ranks, opt)
}

// mapped is how much of the base's file is resident: all of it, or when layers are
// streamed some of them, the embedding and the head.
func (r *runner) mapped(stream bool) int64 {
	if r.cfg.Hold != "" {
		return 0 // read once, then held
	}
	var layers, rest int64
	for _, v := range r.base.Source.Views {
		for _, t := range v.From {
			if strings.HasPrefix(v.Name, "blk.") {
				layers += t.Size
			} else {
				rest += t.Size
			}
		}
	}
	if n := int64(len(r.base.Model.Layers)); stream && n > 0 {
		layers = min(layers, streamed*layers/n)
	}
	return layers + rest
}

// streamed is how many layers are resident at a time when they are streamed.
const streamed = 3

// shape is the largest pass that the samples can come to.
func (r *runner) shape() model.Shape {
	var s model.Shape
	longest := 0
	var lengths []int
	for _, x := range append(slices.Clone(r.train), r.held...) {
		lengths = append(lengths, x.Size())
		longest = max(longest, x.Size())
		for _, a := range answers([]data.Sample{x}) {
			s.Longest = max(s.Longest, longestDoc(a))
		}
	}
	slices.Sort(lengths)
	slices.Reverse(lengths)
	limit := max(longest, r.cfg.Batch*r.cfg.Context)
	for _, n := range lengths[:min(len(lengths), r.cfg.Batch*r.cfg.Accumulate)] {
		s.Tokens += n
	}
	s.Tokens = min(s.Tokens, limit)
	s.Trained, s.Dropout = s.Tokens, r.cfg.Adapter.Dropout > 0
	return s
}

func longestDoc(s data.Sample) int {
	longest, end := 0, len(s.IDs)
	for i := len(s.Docs) - 1; i >= 0; i-- {
		longest, end = max(longest, end-s.Docs[i]), s.Docs[i]
	}
	return max(longest, end)
}

// choose says how much is kept between the passes, so that the run stays under the
// memory that it was given, in settings and in words.
func (r *runner) choose() (model.Options, string, error) {
	c := &r.cfg
	opt := c.modelOptions()
	if c.Memory == 0 {
		return opt, "", nil
	}
	layers := len(r.base.Model.Layers)
	opt.KeepLayers = 0
	opt.Stream = r.forecast(opt) > c.Memory // the base does not fit beside the rest
	opt.KeepLayers = layers
	for opt.KeepLayers > 0 && r.forecast(opt) > c.Memory {
		opt.KeepLayers--
	}
	if need := r.forecast(opt); need > c.Memory {
		return opt, "", format.Usagef("the run needs about %d MB and is given %d: a shorter context, a smaller batch or a lower rank needs less", need/1e6, c.Memory/1e6)
	}
	if all := opt; opt.KeepLayers < layers {
		all.KeepAttention = true
		if r.forecast(all) <= c.Memory {
			opt = all
		}
	}
	text := fmt.Sprintf("%d of %d layers keep their activations, the others run again; ", opt.KeepLayers, layers)
	if opt.Stream {
		text += "the base is read again for every pass; "
	}
	return opt, text, nil
}

// fit takes what choose chooses and says in words what to expect.
func (r *runner) fit() (string, error) {
	opt, text, err := r.choose()
	if err != nil {
		return "", err
	}
	if r.cfg.Memory > 0 {
		r.base.Model.Close()
		if r.base.Model, err = model.New(r.base.Source, opt); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%speak memory about %d MB", text, r.forecast(opt)/1e6), nil
}
