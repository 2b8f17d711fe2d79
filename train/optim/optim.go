package optim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Param is a tensor under training. Value and Grad have Rows*Cols elements, row by row.
type Param struct {
	Name       string
	Rows, Cols int
	Value      []float32 // the float32 master, updated in place
	Grad       []float32 // its gradient; a Step may use its memory
	Rate       float64   // factor on the learning rate of this tensor; 1 is usual
}

// Settings says which optimizer, and its constants. Constants that an optimizer
// does not have are ignored by it.
type Settings struct {
	Name        string  `json:"name" yaml:"name"`                 // a name that [Names] lists
	Beta1       float64 `json:"beta1" yaml:"beta1"`               // adamw, lion: decay of the first moment
	Beta2       float64 `json:"beta2" yaml:"beta2"`               // adamw, lion: decay of the second moment
	Eps         float64 `json:"eps" yaml:"eps"`                   // adamw: added to the root of the second moment
	WeightDecay float64 `json:"weight_decay" yaml:"weight_decay"` // decoupled, but for sgd, where it is added to the gradient
	Momentum    float64 `json:"momentum" yaml:"momentum"`         // sgd, muon
	Dampening   float64 `json:"dampening" yaml:"dampening"`       // sgd
	Nesterov    bool    `json:"nesterov" yaml:"nesterov"`         // sgd, muon
	MatchRMS    bool    `json:"match_rms" yaml:"match_rms"`       // muon: steps of the size of AdamW's
}

// Optimizer updates the parameters it was made with.
type Optimizer interface {
	// Step applies one update at learning rate lr.
	Step(lr float64)
	// State gives everything that Step has accumulated. The slices are the
	// optimizer's own: copy or write them before the next Step.
	State() State
	// Load puts a state back, copying it. It fails, changing nothing, when the
	// state is not one of the same optimizer over the same parameters.
	Load(State) error
}

// State is the state of an optimizer: the number of steps made and named tensors.
type State struct {
	Step    int64
	Tensors []Tensor
}

// Tensor is a named piece of a state.
type Tensor struct {
	Name string // parameter's name, a dot, torch's key: "a.exp_avg"
	Data []float32
}

type entry struct {
	defaults Settings
	make     func(Settings, []Param) Optimizer
}

var optimizers = map[string]entry{
	"adamw": {Settings{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, newAdamW},
	"sgd":   {Settings{}, newSGD},
	"lion":  {Settings{Beta1: 0.9, Beta2: 0.99}, newLion},

	"adafactor": {Settings{}, newAdafactor},
	"muon":      {Settings{Momentum: 0.95, Nesterov: true}, newMuon},
}

// Names lists the optimizers.
func Names() []string { return slices.Sorted(maps.Keys(optimizers)) }

// DefaultSettings gives the usual constants of an optimizer: those of torch, but
// without weight decay, as is usual for adapters. An unknown name gives constants
// of zero, which [New] refuses.
func DefaultSettings(name string) Settings {
	s := optimizers[name].defaults
	s.Name = name
	return s
}

// New makes an optimizer over params, whose slices it keeps. The error names the
// setting that is out of range.
func New(s Settings, params []Param) (Optimizer, error) {
	e, ok := optimizers[s.Name]
	if !ok {
		return nil, fmt.Errorf("optim: no optimizer is called %q: there are %s", s.Name, strings.Join(Names(), ", "))
	}
	for _, c := range []struct {
		name string
		v    float64
		max  float64
	}{{"beta1", s.Beta1, 1}, {"beta2", s.Beta2, 1}, {"momentum", s.Momentum, 1}, {"dampening", s.Dampening, 1}} {
		if !(c.v >= 0 && c.v < c.max) {
			return nil, fmt.Errorf("optim: %s is %v, which is outside 0 ≤ %s < %v", c.name, c.v, c.name, c.max)
		}
	}
	if !(s.Eps >= 0) || !(s.WeightDecay >= 0) {
		return nil, fmt.Errorf("optim: eps is %v and weight_decay %v: neither may be negative", s.Eps, s.WeightDecay)
	}
	for i := range params {
		p := &params[i]
		if len(p.Value) != p.Rows*p.Cols || len(p.Grad) != len(p.Value) {
			panic("optim: value or gradient of " + p.Name + " has the wrong length")
		}
	}
	return e.make(s, params), nil
}

// slots are one float32 tensor for each parameter.
type slots struct {
	key  string
	data [][]float32
}

// newSlots makes zeros, as many for each parameter as size says.
func newSlots(key string, params []Param, size func(*Param) int) slots {
	s := slots{key: key, data: make([][]float32, len(params))}
	for i := range params {
		s.data[i] = make([]float32, size(&params[i]))
	}
	return s
}

// whole is the size of a slot of the parameter's own shape.
func whole(p *Param) int { return len(p.Value) }

func saveSlots(step int64, params []Param, all ...slots) State {
	st := State{Step: step}
	for i := range params {
		for _, s := range all {
			st.Tensors = append(st.Tensors, Tensor{params[i].Name + "." + s.key, s.data[i]})
		}
	}
	return st
}

func loadSlots(st State, params []Param, all ...slots) (int64, error) {
	want := saveSlots(0, params, all...).Tensors
	if st.Step < 0 || len(st.Tensors) != len(want) {
		return 0, fmt.Errorf("optim: load state: %d tensors at step %d, where %d belong", len(st.Tensors), st.Step, len(want))
	}
	for i, t := range st.Tensors {
		if t.Name != want[i].Name || len(t.Data) != len(want[i].Data) {
			return 0, fmt.Errorf("optim: load state: tensor %s of %d elements, where %s of %d belongs", t.Name, len(t.Data), want[i].Name, len(want[i].Data))
		}
	}
	for i, t := range st.Tensors {
		copy(want[i].Data, t.Data)
	}
	return st.Step, nil
}
