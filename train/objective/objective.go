package objective

import (
	"fmt"
	"math"
	"strings"
)

// Kind is what an objective learns from.
type Kind int

// Kinds of objectives.
const (
	Tokens Kind = iota // every trained token by itself: the plain loss
	Pairs              // a chosen and a rejected answer to the same prompt
	Labels             // single answers, each called good or bad
)

// Settings choose an objective. Numbers that are zero are the objective's defaults,
// which [New] fills in.
type Settings struct {
	Name string `json:"name,omitempty" yaml:"name,omitempty"` // one of [Names]; empty is sft
	// Beta is how much a log-ratio weighs: large keeps the policy near the reference.
	Beta float64 `json:"beta,omitempty" yaml:"beta,omitempty"`
	// Gamma is the margin that SimPO asks between the two answers, in the units of beta·log-probability.
	Gamma float64 `json:"gamma,omitempty" yaml:"gamma,omitempty"`
	// LabelSmoothing is the part of pairs whose preference is taken to be wrong, below 0.5.
	LabelSmoothing float64 `json:"label_smoothing,omitempty" yaml:"label_smoothing,omitempty"`
	// NLL is the weight of the plain loss of the chosen answers, added to the objective's
	// own (for ORPO, of which it is a part, it is always 1).
	NLL float64 `json:"nll,omitempty" yaml:"nll,omitempty"`
	// Desirable and Undesirable weigh KTO's good and bad answers.
	Desirable   float64 `json:"desirable,omitempty" yaml:"desirable,omitempty"`
	Undesirable float64 `json:"undesirable,omitempty" yaml:"undesirable,omitempty"`
}

// Objective is a loss with its settings.
type Objective struct {
	Settings
	entry
}

// entry is a row of the table of objectives.
type entry struct {
	name      string
	about     string
	kind      Kind
	reference bool // it compares with the model without the adapter
	smooths   bool // label smoothing means something to it
	defaults  Settings
	loss      func(o *Objective, e *Example, kl float64) Result
}

var table = []entry{
	{name: "sft", about: "the plain loss of the answers' tokens", kind: Tokens},
	{name: "dpo", about: "sigmoid of the difference of log-ratios (arXiv 2305.18290)", kind: Pairs, reference: true, smooths: true,
		defaults: Settings{Beta: 0.1}, loss: sigmoidLoss},
	{name: "ipo", about: "squared distance of mean log-ratios from a margin (arXiv 2310.12036)", kind: Pairs, reference: true,
		defaults: Settings{Beta: 0.1}, loss: ipoLoss},
	{name: "hinge", about: "hinge of the difference of log-ratios (arXiv 2305.10425)", kind: Pairs, reference: true,
		defaults: Settings{Beta: 0.1}, loss: hingeLoss},
	{name: "robust", about: "DPO with a known part of wrong preferences (arXiv 2403.00409)", kind: Pairs, reference: true, smooths: true,
		defaults: Settings{Beta: 0.1}, loss: robustLoss},
	{name: "exo", about: "reverse divergence of a pair (arXiv 2402.00856)", kind: Pairs, reference: true, smooths: true,
		defaults: Settings{Beta: 0.1}, loss: exoLoss},
	{name: "apo-zero", about: "the chosen up, the rejected down (arXiv 2408.06266)", kind: Pairs, reference: true,
		defaults: Settings{Beta: 0.1}, loss: apoZeroLoss},
	{name: "apo-down", about: "both down, the rejected more (arXiv 2408.06266)", kind: Pairs, reference: true,
		defaults: Settings{Beta: 0.1}, loss: apoDownLoss},
	{name: "orpo", about: "plain loss and odds ratio, no reference (arXiv 2403.07691)", kind: Pairs,
		defaults: Settings{Beta: 0.1, NLL: 1}, loss: orpoLoss},
	{name: "simpo", about: "mean log-probabilities with a margin, no reference (arXiv 2405.14734)", kind: Pairs, smooths: true,
		defaults: Settings{Beta: 2, Gamma: 0.5}, loss: simpoLoss},
	{name: "cpo", about: "DPO without a reference, with plain loss (arXiv 2401.08417)", kind: Pairs, smooths: true,
		defaults: Settings{Beta: 0.1, NLL: 1}, loss: cpoLoss},
	{name: "kto", about: "single answers, good or bad (arXiv 2402.01306)", kind: Labels, reference: true,
		defaults: Settings{Beta: 0.1, Desirable: 1, Undesirable: 1}, loss: ktoLoss},
}

// Names lists the objectives, the plain one first.
func Names() []string {
	names := make([]string, len(table))
	for i, e := range table {
		names[i] = e.name
	}
	return names
}

// New checks settings and fills in what is left out.
func New(s Settings) (*Objective, error) {
	if s.Name == "" {
		s.Name = table[0].name
	}
	for _, e := range table {
		if e.name == s.Name {
			return e.with(s)
		}
	}
	return nil, fmt.Errorf("train: no objective %q: there are %s", s.Name, strings.Join(Names(), ", "))
}

func (e entry) with(s Settings) (*Objective, error) {
	for _, f := range []struct {
		name  string
		value *float64
		def   float64
	}{
		{"beta", &s.Beta, e.defaults.Beta}, {"gamma", &s.Gamma, e.defaults.Gamma}, {"nll", &s.NLL, e.defaults.NLL},
		{"desirable", &s.Desirable, e.defaults.Desirable}, {"undesirable", &s.Undesirable, e.defaults.Undesirable},
	} {
		if !(*f.value >= 0) || math.IsInf(*f.value, 0) {
			return nil, fmt.Errorf("train: %s of objective %s is %v", f.name, e.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	switch {
	case !(s.LabelSmoothing >= 0 && s.LabelSmoothing < 0.5):
		return nil, fmt.Errorf("train: label_smoothing of objective %s is %v: it must be below 0.5", e.name, s.LabelSmoothing)
	case s.LabelSmoothing > 0 && !e.smooths:
		return nil, fmt.Errorf("train: objective %s has no label_smoothing", e.name)
	case s.Gamma > 0 && e.defaults.Gamma == 0:
		return nil, fmt.Errorf("train: objective %s has no gamma", e.name)
	case e.kind == Tokens && s != Settings{Name: e.name}:
		return nil, fmt.Errorf("train: objective %s has no settings", e.name)
	case e.kind == Labels && s.NLL > 0:
		return nil, fmt.Errorf("train: objective %s has no nll", e.name)
	case e.kind != Labels && (s.Desirable > 0 || s.Undesirable > 0):
		return nil, fmt.Errorf("train: objective %s does not weigh desirable and undesirable answers", e.name)
	case e.name == "orpo" && s.NLL != 1:
		return nil, fmt.Errorf("train: the plain loss is a part of ORPO: nll cannot be %v, beta weighs the other part", s.NLL)
	}
	return &Objective{Settings: s, entry: e}, nil
}

// Kind says what the objective learns from.
func (o *Objective) Kind() Kind { return o.kind }

// NeedsReference says whether log-probabilities of the model without the adapter are needed.
func (o *Objective) NeedsReference() bool { return o.reference }

// Completion is an answer with what the models think of it.
type Completion struct {
	LogP   float64 // the sum of the log-probabilities of its tokens, in nats
	Ref    float64 // the same under the reference
	Tokens int     // how many there are, at least 1
}

func (c *Completion) mean() float64  { return c.LogP / float64(c.Tokens) }
func (c *Completion) ratio() float64 { return c.LogP - c.Ref }

// Example is a pair, or for [Labels] a single answer in Chosen, Bad if it is one.
type Example struct {
	Chosen, Rejected Completion
	Bad              bool
}

// Result is what an example comes to.
type Result struct {
	Loss float64 // without the plain loss
	// Chosen and Rejected are the derivatives of Loss by the log-probability of each
	// of the answer's tokens, which is the same for all of them.
	Chosen, Rejected float64
	// Rewards of the answers: beta times the log-ratio, or without a reference what the
	// objective compares. A pair is ranked right if that of the chosen is larger.
	ChosenReward, RejectedReward float64
}

// Example is the loss of one example. kl is what [Objective.KL] found for the batch
// (KTO only).
func (o *Objective) Example(e Example, kl float64) Result { return o.loss(o, &e, kl) }

// KL is KTO's estimate of how far the policy is from the reference: the mean
// log-ratio of answers to prompts that are not theirs, at least 0.
func (o *Objective) KL(mismatched []Completion) float64 {
	if len(mismatched) == 0 {
		return 0
	}
	sum := 0.0
	for i := range mismatched {
		sum += mismatched[i].ratio()
	}
	return math.Max(0, sum/float64(len(mismatched)))
}
