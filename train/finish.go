package train

import (
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/graft-lora/graft/internal/atomicfile"
)

// finish writes the adapter, the curve and the record.
func (r *runner) finish() (Result, error) {
	r.tell(Progress{Phase: "saving", Done: r.state.Step, Total: r.steps})
	s := &r.state
	res := Result{
		Steps: s.Step, Sequences: s.Sequences, Tokens: s.Tokens, Trained: s.Trained,
		Loss: s.Loss, Smooth: s.Smooth, EvalFirst: s.EvalFirst, EvalLast: s.EvalLast,
		Parameters: r.lora.count(), TokensPerSecond: r.pace,
	}
	lines, err := ReadLog(filepath.Join(r.cfg.Output, LogFile))
	if err != nil {
		return res, err
	}
	svg, err := Curve(lines, filepath.Base(r.cfg.Data)+" on "+filepath.Base(r.cfg.Base))
	if err != nil {
		return res, err
	}
	if err := atomicfile.WriteFile(filepath.Join(r.cfg.Output, CurveFile), svg, true); err != nil {
		return res, err
	}
	res.Seconds, res.PeakRSS = time.Since(r.t0).Seconds(), memory().peak
	b, err := json.MarshalIndent(r.record(res), "", "  ")
	if err != nil {
		return res, err
	}
	return res, atomicfile.WriteFile(filepath.Join(r.cfg.Output, RecordFile), append(b, '\n'), true)
}
