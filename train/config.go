package train

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/objective"
	"github.com/graft-lora/graft/train/optim"
	"go.yaml.in/yaml/v3"
)

// Config is every setting of a run. Its YAML names are those of a run file and of
// the record. [DefaultConfig] has the defaults; a zero in a Config means zero.
type Config struct {
	Base string `json:"base" yaml:"base"` // the model: GGUF, safetensors or a Hugging Face folder
	// Hold quantizes the base's layers as it is opened, one of [Holds]: for bases that
	// are stored in full. Empty leaves it as it is.
	Hold string `json:"hold,omitempty" yaml:"hold,omitempty"`
	Data string `json:"data,omitempty" yaml:"data,omitempty"` // what is learned: text, JSONL, JSON (plain, .gz or .zst) or Parquet
	// Datasets are more files to learn from, with weights. See [Config.SetData].
	Datasets []Dataset `json:"datasets,omitempty" yaml:"datasets,omitempty"`
	Output   string    `json:"output" yaml:"output"` // folder of the adapter, the log and the checkpoints

	// HeldOut is a file to evaluate on; without one, HeldOutPart of the data is held
	// out, chosen by Seed (0: nothing is).
	HeldOut     string      `json:"held_out,omitempty" yaml:"held_out,omitempty"`
	HeldOutPart float64     `json:"held_out_part" yaml:"held_out_part"`
	Fields      data.Fields `json:"fields" yaml:"fields"`
	// Samples says how records become sequences.
	Samples data.Options `json:"samples" yaml:"samples"`
	Context int          `json:"context" yaml:"context"` // tokens of the longest sequence
	// ChatTemplate is a file with a Jinja template to use in place of the model's own.
	ChatTemplate string `json:"chat_template,omitempty" yaml:"chat_template,omitempty"`
	Shuffle      bool   `json:"shuffle" yaml:"shuffle"` // a new order in each epoch, else the file's

	Adapter AdapterConfig `json:"adapter" yaml:"adapter"`
	// Objective is what the adapter is trained for; the plain loss when it is empty.
	Objective objective.Settings `json:"objective,omitzero" yaml:"objective,omitempty"`

	// Distill is a larger model to learn from beside the data.
	Distill DistillConfig `json:"distill,omitzero" yaml:"distill,omitempty"`

	// A step trains on Batch sequences at once, Accumulate times.
	Batch      int                    `json:"batch" yaml:"batch"`
	Accumulate int                    `json:"accumulate" yaml:"accumulate"`
	Epochs     float64                `json:"epochs" yaml:"epochs"`                       // times through the data, when Steps is 0
	Steps      int                    `json:"steps" yaml:"steps"`                         // optimizer steps; the data is begun again as often as needed
	LR         float64                `json:"lr" yaml:"lr"`                               // peak learning rate
	AutoLR     bool                   `json:"auto_lr,omitempty" yaml:"auto_lr,omitempty"` // [Base.SuggestLR] in place of LR; in a run file "lr: auto"
	LRRatio    float64                `json:"lr_ratio" yaml:"lr_ratio"`                   // LoRA+: the rate of B is LR, that of A, times this
	Warmup     float64                `json:"warmup" yaml:"warmup"`                       // steps of warm-up, or below 1 a part of all steps, rounded up
	ClipNorm   float64                `json:"clip_norm" yaml:"clip_norm"`                 // largest norm of the gradient; 0 does not clip
	Seed       uint64                 `json:"seed" yaml:"seed"`                           // of the initial adapter, the order, the split and the dropout
	Optimizer  optim.Settings         `json:"optimizer" yaml:"optimizer"`
	Schedule   optim.ScheduleSettings `json:"schedule" yaml:"schedule"` // its warmup and total are filled in

	// Compute is the arithmetic of the base's products: float32, the same bytes everywhere;
	// bf16, faster on processors that have AVX512_BF16, the same bytes on those; or auto,
	// which becomes the faster of them before the run begins.
	Compute string `json:"compute" yaml:"compute"`

	// RouterLoss is the weight of the loss that keeps the use of experts even, see
	// [model.Loss]; 0 is none. 0.001 is usual.
	RouterLoss float64 `json:"router_loss,omitempty" yaml:"router_loss,omitempty"`
	// NEFTune is the size of the noise on embeddings in training, see [model.Noise]; 0 is none.
	NEFTune float64 `json:"neftune,omitempty" yaml:"neftune,omitempty"`

	EvalEvery int `json:"eval_every" yaml:"eval_every"` // steps between evaluations; 0: before the first and after the last only
	EvalLimit int `json:"eval_limit" yaml:"eval_limit"` // held-out sequences that are evaluated at most; 0: all
	SaveEvery int `json:"save_every" yaml:"save_every"` // steps between checkpoints; 0: after the last only
	// EvalsPerEpoch and SavesPerEpoch are, in place of EvalEvery and SaveEvery, how often in
	// an epoch; 0: not in that way.
	EvalsPerEpoch float64 `json:"evals_per_epoch,omitempty" yaml:"evals_per_epoch,omitempty"`
	SavesPerEpoch float64 `json:"saves_per_epoch,omitempty" yaml:"saves_per_epoch,omitempty"`
	// Patience ends the run after so many evaluations one after another without the loss falling
	// below the best so far by more than MinGain; 0: it goes on to the last step.
	Patience int     `json:"patience,omitempty" yaml:"patience,omitempty"`
	MinGain  float64 `json:"min_gain,omitempty" yaml:"min_gain,omitempty"`
	// KeepBest writes the adapter as it was at the best evaluation, in place of the last.
	KeepBest bool `json:"keep_best,omitempty" yaml:"keep_best,omitempty"`

	// SamplePrompts are answered at every evaluation, by up to SampleTokens tokens each: the
	// answers go into the log and the report, and change nothing else.
	SamplePrompts []string `json:"sample_prompts,omitempty" yaml:"sample_prompts,omitempty"`
	SampleTokens  int      `json:"sample_tokens,omitempty" yaml:"sample_tokens,omitempty"`

	// What follows changes how fast a run is and what memory it needs, and no byte of
	// its result; a run may be resumed with other values.
	Threads    int   `json:"threads" yaml:"threads"`         // 0: one for each processor
	KeepLayers int   `json:"keep_layers" yaml:"keep_layers"` // layers whose activations are kept between the passes; the others are run again; -1: all
	HeadMemory int64 `json:"head_memory" yaml:"head_memory"` // bytes of logits held at a time; 0: the model's default
	// Memory is how many bytes of resident memory the run may take in all: as many layers
	// keep their activations as fit, in place of KeepLayers. 0 leaves it to KeepLayers.
	Memory int64 `json:"memory" yaml:"memory"`
	// Report is where [ReportFile] is written instead of the output folder.
	Report string `json:"report,omitempty" yaml:"report,omitempty"`
	// TensorBoard writes [EventsFile] at the end.
	TensorBoard bool `json:"tensorboard,omitempty" yaml:"tensorboard,omitempty"`
	// DataCache is the folder in which the samples made of the data are kept, for this run
	// and others on the same files. Empty is the user's cache, for files of some size;
	// [NoDataCache] keeps none.
	DataCache string `json:"data_cache,omitempty" yaml:"data_cache,omitempty"`
	// KeepCheckpoints is how many of the latest checkpoints stay.
	KeepCheckpoints int `json:"keep_checkpoints" yaml:"keep_checkpoints"`

	tokensAtOnce int               // of a pass, where Memory leaves less than limit says; 0: it does not
	notes        []string          // about the run file, to be told once
	special      map[string]string // tokens that the run file says the base has
}

// limit is how many tokens are run at once, if a sequence is not longer.
func (c *Config) limit() int {
	if c.tokensAtOnce > 0 {
		return c.tokensAtOnce
	}
	return c.Batch * c.Context
}

// AdapterConfig says what is trained.
type AdapterConfig struct {
	Rank int `json:"rank" yaml:"rank"`
	// RankPattern and AlphaPattern are other ranks and alphas, by words as Targets has
	// them, or regular expressions that PEFT would match. Two that mean the same matrix
	// and do not agree are an error.
	RankPattern  map[string]int     `json:"rank_pattern,omitempty" yaml:"rank_pattern,omitempty"`
	AlphaPattern map[string]float64 `json:"alpha_pattern,omitempty" yaml:"alpha_pattern,omitempty"`
	Alpha        float64            `json:"alpha" yaml:"alpha"`     // the change is alpha/rank · B·A
	RSLoRA       bool               `json:"rslora" yaml:"rslora"`   // alpha/√rank instead
	Dropout      float64            `json:"dropout" yaml:"dropout"` // part of an adapter's inputs that is dropped in training
	// Targets are the matrices that are changed: all-linear (all of the layers, not
	// the embedding and the head), a module as Hugging Face or GGUF calls it
	// (q_proj, attn_q), or a pattern with * and ? over the whole name
	// (blk.1?.ffn_*, *.layers.3.mlp.*), or re: and a regular expression for all of it.
	// experts are all stacks of experts, which all-linear leaves out; none is no matrix, for
	// rows of tokens alone.
	Targets []string `json:"targets" yaml:"targets,flow"`
	Exclude []string `json:"exclude,omitempty" yaml:"exclude,omitempty,flow"` // taken out again, in the same words
	// Layers are those whose matrices are changed, "8-23,30"; empty: all. The embedding
	// and the head are in no layer.
	Layers string `json:"layers,omitempty" yaml:"layers,omitempty"`
	// DoRA trains the norms of the changed matrices' rows too.
	DoRA bool `json:"dora,omitempty" yaml:"dora,omitempty"`
	// Init is how A and B begin: "" or lora (A random, B zero), pissa or eva.
	Init string `json:"init,omitempty" yaml:"init,omitempty"`
	// EVARho is how many times Rank a matrix may get when eva gives ranks to where they
	// explain most; 0 or 1 leaves all at Rank.
	EVARho float64 `json:"eva_rho,omitempty" yaml:"eva_rho,omitempty"`
	// Invocation is a text, of which the last occurrence in a sequence begins what the
	// adapter acts on (aLoRA): before it the base is as it was.
	Invocation string `json:"invocation,omitempty" yaml:"invocation,omitempty"`
	// From is an adapter to begin with, in place of a new one; its rank, scale, kind and
	// matrices are kept, and the settings of these have no effect.
	From string `json:"from,omitempty" yaml:"from,omitempty"`
	// NewTokens are added to the base's tokenizer, and their rows of the embedding, and of a
	// head that is not tied to it, are trained. NewTokenInit is how the rows begin: "" or
	// mean (of all tokens' rows), words (of the pieces it is spelled with), zero.
	NewTokens    []string `json:"new_tokens,omitempty" yaml:"new_tokens,omitempty,flow"`
	NewTokenInit string   `json:"new_token_init,omitempty" yaml:"new_token_init,omitempty"`
	// TrainTokens are tokens of the base whose rows are trained: by their text, or "#" and their id.
	TrainTokens []string `json:"train_tokens,omitempty" yaml:"train_tokens,omitempty,flow"`
	// QALoRA trains A's that are constant over the sub-blocks of each matrix's type, so that
	// merge --method exact can put the change into minimums. It needs types with minimums:
	// Q4_1, Q5_1, Q2_K, Q4_K, Q5_K; matrices of other types are not trained.
	QALoRA bool `json:"qa_lora,omitempty" yaml:"qa_lora,omitempty"`
	// Float32 trains and saves the adapter in float32. Otherwise the numbers used and
	// saved are float16, and float32 masters take the updates.
	Float32 bool `json:"float32,omitempty" yaml:"float32,omitempty"`
	// MergeAware trains the adapter for the file that it will be merged into, see
	// [model.Merge]: what is computed in training is what the merged file computes.
	MergeAware bool `json:"merge_aware,omitempty" yaml:"merge_aware,omitempty"`
}

// DefaultConfig has the default of every setting that has one.
func DefaultConfig() Config {
	return Config{
		HeldOutPart: 0.05,
		Context:     1024,
		Shuffle:     true,
		Adapter:     AdapterConfig{Rank: 16, Alpha: 32, Targets: []string{"all-linear"}},
		Batch:       1,
		Accumulate:  8,
		Epochs:      1,
		LR:          2e-4,
		LRRatio:     1,
		Warmup:      0.03,
		ClipNorm:    1,
		Seed:        1,
		Optimizer:   optim.DefaultSettings("adamw"),
		Schedule:    optim.ScheduleSettings{Name: "cosine"},
		EvalLimit:   64,
		SaveEvery:   50,
		HeadMemory:  32 << 20,

		SampleTokens: 64,
		Compute:      kernel.Float32.String(),

		KeepCheckpoints: 2,
	}
}

// LoadConfig reads a run file over the defaults. The names that axolotl, PEFT and TRL
// have for the common settings are understood too. A key that there is none of is an
// error with its line and the nearest that there is.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	b, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if doc.Kind == 0 {
		return c, nil // an empty file
	}
	if len(doc.Content) > 0 {
		c.special = specialTokens(doc.Content[0])
	}
	left, err := ownNames(&doc)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if len(left) > 0 {
		c.notes = append(c.notes, fmt.Sprintf("%s: left out, as graft has its own way or no use for it: %s", path, strings.Join(left, ", ")))
	}
	var named struct {
		Optimizer struct{ Name string }
	}
	if err := doc.Decode(&named); err == nil && named.Optimizer.Name != "" {
		c.Optimizer = optim.DefaultSettings(named.Optimizer.Name) // under what else the file says of it
	}
	if err := doc.Decode(&c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// fill gives an optimizer that was put in the default's place by name its own constants.
func (c *Config) fill() {
	was := optim.DefaultSettings("adamw")
	was.Name, was.WeightDecay = c.Optimizer.Name, c.Optimizer.WeightDecay
	if c.Optimizer == was {
		c.Optimizer = optim.DefaultSettings(was.Name)
		c.Optimizer.WeightDecay = was.WeightDecay
	}
}

// Check says which setting makes no sense, before any file is opened.
func (c *Config) Check() error {
	bad := func(f string, args ...any) error { return fmt.Errorf("train: "+f, args...) }
	switch {
	case c.Base == "":
		return bad("no base is given")
	case c.Data == "" && len(c.Datasets) == 0:
		return bad("no data is given")
	case c.Output == "":
		return bad("no output folder is given")
	case c.Context < 2:
		return bad("context is %d: a sequence needs two tokens", c.Context)
	case c.Batch < 1 || c.Accumulate < 1:
		return bad("batch is %d and accumulate %d: both must be at least 1", c.Batch, c.Accumulate)
	case c.Steps < 0 || c.Steps == 0 && !(c.Epochs > 0 && c.Epochs < 1e9):
		return bad("steps is %d and epochs %v: one of them must be positive", c.Steps, c.Epochs)
	case !(c.LR >= 0) || math.IsInf(c.LR, 0):
		return bad("lr is %v", c.LR)
	case !(c.LRRatio > 0) || math.IsInf(c.LRRatio, 0):
		return bad("lr_ratio is %v: it must be positive", c.LRRatio)
	case !(c.Warmup >= 0) || c.Warmup > 1 && c.Warmup != math.Trunc(c.Warmup):
		return bad("warmup is %v: it is a number of steps, or a part of them below 1", c.Warmup)
	case !(c.ClipNorm >= 0):
		return bad("clip_norm is %v", c.ClipNorm)
	case !(c.HeldOutPart >= 0 && c.HeldOutPart < 1):
		return bad("held_out_part is %v: it must be below 1", c.HeldOutPart)
	case c.EvalEvery < 0 || c.EvalLimit < 0 || c.SaveEvery < 0:
		return bad("eval_every is %d, eval_limit %d and save_every %d: none may be negative", c.EvalEvery, c.EvalLimit, c.SaveEvery)
	case !(c.RouterLoss >= 0) || math.IsInf(c.RouterLoss, 0):
		return bad("router_loss is %v", c.RouterLoss)
	case !(c.NEFTune >= 0) || math.IsInf(c.NEFTune, 0):
		return bad("neftune is %v", c.NEFTune)
	case c.Patience < 0 || !(c.MinGain >= 0):
		return bad("patience is %d and min_gain %v: neither may be negative", c.Patience, c.MinGain)
	case (c.Patience > 0 || c.KeepBest) && c.HeldOut == "" && c.HeldOutPart == 0:
		return bad("patience and keep_best need held-out data to evaluate on")
	case !(c.EvalsPerEpoch >= 0) || !(c.SavesPerEpoch >= 0):
		return bad("evals_per_epoch is %v and saves_per_epoch %v: neither may be negative", c.EvalsPerEpoch, c.SavesPerEpoch)
	case c.EvalEvery > 0 && c.EvalsPerEpoch > 0:
		return bad("eval_every is %d and evals_per_epoch %v: one of them says when to evaluate", c.EvalEvery, c.EvalsPerEpoch)
	case c.Patience > 0 && c.EvalEvery == 0 && c.EvalsPerEpoch == 0:
		return bad("patience counts evaluations, and eval_every is 0")
	case len(c.SamplePrompts) > 0 && c.SampleTokens < 1:
		return bad("sample_tokens is %d: it must be at least 1", c.SampleTokens)
	case c.KeepCheckpoints < 1:
		return bad("keep_checkpoints is %d: one is needed to resume", c.KeepCheckpoints)
	case !(c.Adapter.Dropout >= 0 && c.Adapter.Dropout < 1):
		return bad("dropout is %v: it must be below 1", c.Adapter.Dropout)
	case c.Adapter.MergeAware && (c.Adapter.DoRA || c.Adapter.Init == "pissa" || c.Adapter.Invocation != ""):
		return bad("merge_aware does not go with dora, pissa or an invocation")
	case c.Adapter.QALoRA && (c.Adapter.DoRA || c.Adapter.Init != "" || c.Adapter.Invocation != ""):
		return bad("qa_lora does not go with dora, an init or an invocation")
	case c.Adapter.DoRA && (c.Adapter.Init == "pissa" || c.Adapter.Invocation != ""):
		return bad("dora does not go with pissa or an invocation")
	case c.Adapter.Init != "" && c.Adapter.Init != "lora" && c.Adapter.Init != "pissa" && c.Adapter.Init != "eva":
		return bad("init is %q: there are lora, pissa and eva", c.Adapter.Init)
	case c.Adapter.EVARho != 0 && (c.Adapter.Init != "eva" || !(c.Adapter.EVARho >= 1 && c.Adapter.EVARho <= 8)):
		return bad("eva_rho is %v: it goes with init eva and is between 1 and 8", c.Adapter.EVARho)
	case c.Adapter.MergeAware && c.Adapter.Dropout > 0:
		return bad("merge_aware has no branch that dropout (%v) could act on: the change is in the weights", c.Adapter.Dropout)
	case c.Adapter.From != "":
	case c.Adapter.Rank < 1:
		return bad("rank is %d", c.Adapter.Rank)
	case !(c.Adapter.Alpha > 0) || math.IsInf(c.Adapter.Alpha, 0):
		return bad("alpha is %v", c.Adapter.Alpha)
	case len(c.Adapter.Targets) == 0:
		return bad("no target modules are given")
	}
	if _, err := c.compute(); err != nil {
		return err
	}
	if _, _, err := c.schedule(1, 1); err != nil {
		return err
	}
	if _, err := optim.New(c.Optimizer, nil); err != nil {
		return err
	}
	if err := c.checkTokens(); err != nil {
		return err
	}
	if err := c.checkData(); err != nil {
		return err
	}
	if err := c.Distill.check(c.Objective.Name); err != nil {
		return err
	}
	_, err := objective.New(c.Objective)
	return err
}

// scale is what B·A is multiplied by.
func (a *AdapterConfig) scale(alpha float64, rank int) float64 {
	if a.RSLoRA {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// steps is the number of optimizer steps over n sequences.
func (c *Config) steps(n int) int {
	if c.Steps > 0 {
		return c.Steps
	}
	per := c.Batch * c.Accumulate
	return max(1, (c.sequences(n)+per-1)/per)
}

// sequences is the number of sequences that are trained on when epochs count.
func (c *Config) sequences(n int) int {
	return max(1, int(math.Ceil(c.Epochs*float64(n))))
}

// every is the number of steps between two of what comes perEpoch times in an epoch of n
// sequences, or every steps steps where perEpoch is 0.
func (c *Config) every(steps int, perEpoch float64, n int) int {
	if perEpoch <= 0 {
		return steps
	}
	return max(1, int(math.Ceil(float64(n)/float64(c.Batch*c.Accumulate)/perEpoch)))
}

// schedule is the learning rate over that many steps.
func (c *Config) schedule(steps int, lr float64) (optim.Schedule, optim.ScheduleSettings, error) {
	s := c.Schedule
	s.Total = steps
	s.Warmup = int(c.Warmup)
	if c.Warmup < 1 {
		s.Warmup = int(math.Ceil(c.Warmup * float64(steps)))
	}
	f, err := optim.NewSchedule(s, lr)
	return f, s, err
}

// essence is what the result depends on: not where files lie, which their digests say,
// nor how fast a run is and what memory it takes.
func (c Config) essence() Config {
	c.Base, c.Data, c.HeldOut, c.Output, c.Adapter.From, c.ChatTemplate, c.Distill.Teacher = "", "", "", "", "", "", ""
	c.Threads, c.KeepLayers, c.HeadMemory, c.Memory, c.SaveEvery, c.KeepCheckpoints = 0, 0, 0, 0, 0, 0
	c.TensorBoard, c.DataCache, c.Datasets = false, "", withoutPaths(c.Datasets)
	c.Report, c.SamplePrompts, c.SampleTokens, c.SavesPerEpoch = "", nil, 0, 0
	if c.Compute == "" { // of a run from before there was a choice
		c.Compute = kernel.Float32.String()
	}
	return c
}

// differs lists the settings in which a and b would not make the same run, by their
// YAML names. Files are compared by their digests elsewhere.
func differs(a, b Config) []string {
	x, y := flatten(a.essence()), flatten(b.essence())
	names := map[string]bool{}
	for k, v := range x {
		if w, ok := y[k]; !ok || v != w {
			names[k] = true
		}
	}
	for k := range y {
		if _, ok := x[k]; !ok {
			names[k] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// flatten gives the settings of c as text by their dotted YAML names.
func flatten(c Config) map[string]string {
	var n yaml.Node
	if err := n.Encode(c); err != nil {
		panic(err) // a Config holds nothing that cannot be written
	}
	out := map[string]string{}
	var walk func(prefix string, n *yaml.Node)
	walk = func(prefix string, n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := prefix + n.Content[i].Value
			switch v := n.Content[i+1]; v.Kind {
			case yaml.MappingNode:
				walk(name+".", v)
			case yaml.SequenceNode:
				for j, e := range v.Content {
					if e.Kind == yaml.MappingNode {
						walk(fmt.Sprintf("%s.%d.", name, j+1), e)
						continue
					}
					if j > 0 {
						out[name] += ","
					}
					out[name] += e.Value
				}
			default:
				out[name] = v.Value
			}
		}
	}
	walk("", &n)
	return out
}
