package train

import (
	"runtime"
	"runtime/debug"

	"github.com/graft-lora/graft/internal/cpu"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/optim"
)

// Record says how an adapter came to be, completely enough to make it again.
type Record struct {
	Graft    string                 `json:"graft"`  // version of graft that made it
	Go       string                 `json:"go"`     // and of Go
	System   string                 `json:"system"` // "linux/amd64"
	Kernel   string                 `json:"kernel"` // tier of the kernels; it does not matter for the result
	Config   Config                 `json:"config"`
	Schedule optim.ScheduleSettings `json:"schedule"` // with the steps filled in
	LR       float64                `json:"lr"`       // the peak rate, which may have been chosen

	Inputs       map[string][]FileDigest `json:"inputs"` // base, data, held_out, adapter
	Tokenizer    string                  `json:"tokenizer_sha256"`
	ChatTemplate string                  `json:"chat_template,omitempty"` // the template that rendered conversations
	Samples      string                  `json:"samples_sha256"`          // tokens and masks that were trained on, and those held out
	Data         data.Stats              `json:"data"`                    // of all files
	Datasets     []DatasetStats          `json:"datasets,omitempty"`      // of each, where they are several
	TrainOn      int                     `json:"train_sequences"`
	HeldOut      int                     `json:"held_out_sequences"`
	Evaluated    int                     `json:"evaluated_sequences"` // of those held out

	Architecture string         `json:"architecture"`
	Matrices     []string       `json:"matrices"`               // that the adapter changes
	TrainedRows  []TrainedToken `json:"trained_rows,omitempty"` // tokens whose rows are trained
	Result       Result         `json:"result"`
}

// Version is graft's version as Go's build information has it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	return v
}

func (r *runner) record(res Result) Record {
	return Record{
		Graft: Version(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Kernel: cpu.Current().String(),
		Config: r.cfg, Schedule: r.schedule, LR: r.lr(), Inputs: r.inputs,
		Tokenizer: tokenizerDigest(r.base.Tokenizer), ChatTemplate: r.base.TemplateSource,
		Samples: r.samples, Data: r.stats, Datasets: r.several(), TrainOn: len(r.train), HeldOut: r.heldAll, Evaluated: len(r.held),
		Architecture: r.base.Source.Arch, Matrices: r.lora.names, TrainedRows: r.tokens(), Result: res,
	}
}
