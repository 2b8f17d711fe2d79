package train

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// finish writes the adapter, the curve and, last, the record.
func (r *runner) finish(ctx context.Context) (Result, error) {
	r.tell(Progress{Phase: "saving", Done: r.state.Step, Total: r.steps})
	s := &r.state
	res := Result{
		Steps: s.Step, Sequences: s.Sequences, Tokens: s.Tokens, Trained: s.Trained,
		Loss: s.Loss, Smooth: s.Smooth, EvalFirst: s.EvalFirst, EvalLast: s.EvalLast,
		Parameters: r.lora.count(), TokensPerSecond: r.pace, Expected: r.expected,
	}
	res.EvalBest, res.BestStep = s.Best, s.BestStep
	if r.cfg.KeepBest && s.Best != nil && s.BestStep != s.Step {
		if err := s.loadBest(r.cfg.Output, r.lora.params); err != nil {
			return res, err
		}
		r.lora.sync()
	}
	r.opt, r.lora.params, r.lora.grads = nil, nil, nil // their memory is for what is to come
	debug.FreeOSMemory()
	if err := r.writeMoments(ctx); err != nil {
		return res, err
	}
	written, err := r.writeAdapter()
	if err != nil {
		return res, err
	}
	for _, name := range written {
		list, err := digestFiles(filepath.Join(r.cfg.Output, name))
		if err != nil {
			return res, err
		}
		res.Files = append(res.Files, list...)
	}
	lines, err := ReadLog(filepath.Join(r.cfg.Output, LogFile))
	if err != nil {
		return res, err
	}
	svg, err := Curve(lines, r.cfg.title()+" on "+filepath.Base(r.cfg.Base))
	if err != nil {
		return res, err
	}
	if err := atomicfile.WriteFile(filepath.Join(r.cfg.Output, CurveFile), svg, true); err != nil {
		return res, err
	}
	if err := r.report(lines).WriteFile(r.cfg.reportPath(), true); err != nil {
		return res, err
	}
	if r.cfg.TensorBoard {
		if err := atomicfile.WriteFile(filepath.Join(r.cfg.Output, EventsFile), Events(lines, r.t0), true); err != nil {
			return res, err
		}
	}
	res.Seconds, res.PeakRSS = time.Since(r.t0).Seconds(), memory().peak
	b, err := json.MarshalIndent(r.record(res), "", "  ")
	if err != nil {
		return res, err
	}
	return res, atomicfile.WriteFile(filepath.Join(r.cfg.Output, RecordFile), append(b, '\n'), true)
}

// writeAdapter writes the adapter for PEFT and, unless GGUF cannot hold it, for llama.cpp:
// the same numbers. It gives the names of the files.
func (r *runner) writeAdapter() ([]string, error) {
	a, err := r.lora.file(filepath.Base(r.cfg.Output), r.base)
	if err != nil {
		return nil, err
	}
	extra, err := r.provenance()
	if err != nil {
		return nil, err
	}
	if r.cfg.Adapter.MergeAware {
		maps.Copy(extra, adapter.MergeAware{Seed: r.cfg.Seed}.Metadata())
	}
	opt := adapter.WriteOptions{Type: format.F16, Force: true, Into: true, Dropout: r.cfg.Adapter.Dropout, Extra: extra}
	if sizes := r.lora.pooledSizes(); sizes != "" {
		opt.Extra[PooledKey] = sizes
	}
	if r.cfg.Adapter.Float32 {
		opt.Type = format.F32
	}
	var files []string
	if a.CheckGGUF() == nil {
		if err := adapter.WriteGGUF(filepath.Join(r.cfg.Output, GGUFFile), a, opt); err != nil {
			return nil, err
		}
		files = append(files, GGUFFile)
	}
	beside, err := r.tokenizerFiles()
	if err != nil {
		return nil, err
	}
	opt.Beside = beside
	files = append(files, checkpoint.AdapterConfigName, checkpoint.AdapterWeightsName)
	for _, f := range beside {
		files = append(files, f.Name)
	}
	if _, err := os.Stat(filepath.Join(r.cfg.Output, MomentsFile)); err == nil { // of tokens or experts alone there is none
		files = append(files, MomentsFile)
	}
	return files, adapter.WritePEFT(r.cfg.Output, a, opt)
}

// tokenizerFiles are the base's tokenizer with the tokens that the adapter adds to it; none if it
// adds none.
func (r *runner) tokenizerFiles() ([]adapter.File, error) {
	if len(r.base.added) == 0 {
		return nil, nil
	}
	files, err := convert.TokenizerFiles(r.base.Source)
	if err != nil {
		return nil, err
	}
	var list []adapter.File
	for _, f := range files {
		list = append(list, adapter.File(f))
	}
	return list, nil
}
