package optim

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/nlpodyssey/safetensors"
)

// load reads a recorded file as float32 tensors.
func load(t *testing.T, name string) (map[string][]float32, map[string][]uint64) {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "optim", name))
	if err != nil {
		t.Fatal(err)
	}
	st, err := safetensors.Deserialize(b)
	if err != nil {
		t.Fatal(err)
	}
	data, shape := map[string][]float32{}, map[string][]uint64{}
	for _, n := range st.Names() {
		v, _ := st.Tensor(n)
		raw := v.Data()
		x := make([]float32, len(raw)/4)
		for i := range x {
			x[i] = math.Float32frombits(uint32(raw[4*i]) | uint32(raw[4*i+1])<<8 | uint32(raw[4*i+2])<<16 | uint32(raw[4*i+3])<<24)
		}
		data[n], shape[n] = x, v.Shape()
	}
	return data, shape
}

// TestRecordedSteps repeats ten recorded steps of torch's optimizers: the worst
// difference relative to the largest element of a tensor is 1.2e-7, one rounding, but 2.8e-7 for Muon; lion is equal bit for bit.
func TestRecordedSteps(t *testing.T) {
	t.Parallel()
	in, shape := load(t, "inputs.safetensors")
	for file, c := range map[string]struct {
		set Settings
		lr  float64
		tol float64
	}{
		"adamw":              {Settings{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}, 1e-3, 3e-7},
		"adamw_wd0_eps1e-6":  {Settings{Name: "adamw", Beta1: 0.9, Beta2: 0.95, Eps: 1e-6}, 2e-4, 3e-7},
		"sgd_momentum":       {Settings{Name: "sgd", Momentum: 0.9, WeightDecay: 0.01}, 0.1, 3e-7},
		"sgd_nesterov":       {Settings{Name: "sgd", Momentum: 0.8, Nesterov: true}, 0.05, 3e-7},
		"sgd_dampening":      {Settings{Name: "sgd", Momentum: 0.9, Dampening: 0.1}, 0.05, 3e-7},
		"lion":               {Settings{Name: "lion", Beta1: 0.9, Beta2: 0.99, WeightDecay: 0.1}, 1e-4, 3e-7},
		"adafactor_torch":    {Settings{Name: "adafactor", WeightDecay: 0.01}, 0.01, 5e-7},
		"muon_f32":           {Settings{Name: "muon", Momentum: 0.95, Nesterov: true, WeightDecay: 0.1}, 0.02, 5e-7},
		"muon_match_rms_f32": {Settings{Name: "muon", Momentum: 0.9, MatchRMS: true}, 1e-3, 5e-7},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			want, _ := load(t, file+".safetensors")
			var params []Param
			for _, n := range []string{"mat", "tall", "wide", "vec", "sparse"} {
				if want[n] == nil {
					continue // muon takes matrices only
				}
				s := shape["param."+n]
				rows, cols := 1, int(s[len(s)-1])
				if len(s) == 2 {
					rows = int(s[0])
				}
				params = append(params, Param{Name: n, Rows: rows, Cols: cols, Rate: 1,
					Value: slices.Clone(in["param."+n]), Grad: make([]float32, rows*cols)})
			}
			opt, err := New(c.set, params)
			if err != nil {
				t.Fatal(err)
			}
			worst := 0.0
			compare := func(what string, got, want []float32) {
				t.Helper()
				if len(got) != len(want) {
					t.Fatalf("%s: %d elements, recorded %d", what, len(got), len(want))
				}
				size := 0.0
				for i := range want {
					size = math.Max(size, math.Abs(float64(want[i])))
				}
				for i := range want {
					d := math.Abs(float64(got[i])-float64(want[i])) / math.Max(size, 1e-30)
					worst = math.Max(worst, d)
					if !(d < c.tol) {
						t.Fatalf("%s[%d] is %v, recorded %v", what, i, got[i], want[i])
					}
				}
			}
			for step := range 10 {
				for _, p := range params {
					n := len(p.Grad)
					copy(p.Grad, in["grads."+p.Name][step*n:])
				}
				opt.Step(c.lr)
				for _, p := range params {
					n := len(p.Value)
					compare(fmt.Sprintf("step %d: %s", step+1, p.Name), p.Value, want[p.Name][step*n:(step+1)*n])
				}
				// A fresh optimizer with the saved state goes on exactly.
				if step == 4 {
					saved := opt.State()
					if opt, err = New(c.set, params); err != nil {
						t.Fatal(err)
					}
					if err := opt.Load(saved); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, s := range opt.State().Tensors {
				name := strings.Replace("state."+s.Name, "vec.col_var", "vec.variance", 1)
				if w, ok := want[name]; ok {
					compare(name, s.Data, w)
				} else if c.set.Name != "lion" && c.set.Name != "muon" && len(s.Data) > 0 {
					t.Errorf("no state %s was recorded", s.Name)
				}
			}
			t.Logf("worst relative difference %.2g", worst)
		})
	}
}

func TestLoadRefusesAnotherState(t *testing.T) {
	t.Parallel()
	p := []Param{{Name: "a", Rows: 1, Cols: 2, Value: make([]float32, 2), Grad: make([]float32, 2), Rate: 1}}
	a, _ := New(DefaultSettings("adamw"), p)
	l, _ := New(DefaultSettings("lion"), p)
	if err := a.Load(l.State()); err == nil {
		t.Error("adamw took lion's state")
	}
	st := a.State()
	st.Tensors[0].Data = st.Tensors[0].Data[:1]
	if err := a.Load(st); err == nil {
		t.Error("adamw took a short moment")
	}
}

// TestRecordedSchedules compares the rate of each step with transformers' to 1e-12.
func TestRecordedSchedules(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "optim", "schedules.json"))
	if err != nil {
		t.Fatal(err)
	}
	var runs []struct {
		Scheduler string         `json:"scheduler"`
		Warmup    int            `json:"num_warmup_steps"`
		Total     int            `json:"num_training_steps"`
		LR        float64        `json:"lr"`
		Args      map[string]any `json:"scheduler_specific_kwargs"`
		Want      []float64      `json:"lr_of_step"`
	}
	if err := json.Unmarshal(b, &runs); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range runs {
		c := ScheduleSettings{Name: r.Scheduler, Warmup: r.Warmup, Total: r.Total}
		for k, v := range r.Args {
			f, _ := v.(float64)
			s, _ := v.(string)
			switch k {
			case "num_cycles":
				c.Cycles = f
			case "min_lr_rate", "min_lr_ratio":
				c.MinRatio = f
			case "min_lr":
				c.MinRatio = f / r.LR
			case "warmup_lr_rate":
				c.WarmupFrom = f
			case "timescale":
				c.Timescale = int(f)
			case "lr_end":
				c.End = f
			case "power":
				c.Power = f
			case "num_decay_steps":
				c.Decay = int(f)
			case "num_stable_steps":
				c.Stable = int(f)
			case "warmup_type":
				c.WarmupType = s
			case "decay_type":
				c.DecayType = s
			default:
				t.Fatalf("recorded setting %s", k)
			}
		}
		sched, err := NewSchedule(c, r.LR)
		if err != nil {
			t.Fatal(err)
		}
		seen[c.Name] = true
		for i, w := range r.Want {
			if g := sched(i); !(math.Abs(g-w) <= 1e-12*math.Max(r.LR, w)) {
				t.Errorf("%s %v, warm-up %d, step %d: %v, recorded %v", r.Scheduler, r.Args, r.Warmup, i, g, w)
				break
			}
		}
	}
	for _, n := range ScheduleNames() {
		if !seen[n] {
			t.Errorf("schedule %s was not compared", n)
		}
	}
}

// TestRecordedClipping compares norms to 1e-6 and clipped gradients to one rounding.
func TestRecordedClipping(t *testing.T) {
	t.Parallel()
	data, shape := load(t, "clip.safetensors")
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "optim", "clip.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Case int     `json:"case"`
		Max  float64 `json:"max_norm"`
		Kind any     `json:"norm_type"`
		Norm float64 `json:"total_norm"`
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		kind, ok := c.Kind.(float64)
		if !ok {
			kind = math.Inf(1)
		}
		var params []Param
		for i := range 3 {
			n := fmt.Sprintf("%d.before.%d", c.Case, i)
			size := 1
			for _, d := range shape[n] {
				size *= int(d)
			}
			params = append(params, Param{Name: n, Rows: 1, Cols: size, Grad: slices.Clone(data[n])})
		}
		norm := ClipNorm(params, c.Max, kind)
		if !(math.Abs(norm-c.Norm) <= 1e-6*c.Norm) {
			t.Errorf("case %d: norm %v, recorded %v", c.Case, norm, c.Norm)
		}
		for i, p := range params {
			for j, w := range data[fmt.Sprintf("%d.after.%d", c.Case, i)] {
				if d := math.Abs(float64(p.Grad[j] - w)); !(d <= 3e-7*math.Abs(float64(w))) {
					t.Errorf("case %d: gradient %d[%d] is %v, recorded %v", c.Case, i, j, p.Grad[j], w)
				}
			}
		}
	}
}

// TestScheduleSettings refuses what would have no effect.
func TestScheduleSettings(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]ScheduleSettings{
		"schedule cosine has no min_ratio: it goes with cosine_with_min_lr": {Name: "cosine", MinRatio: 0.1},
		"schedule linear has no cycles":                                     {Name: "linear", Cycles: 2},
		"schedule inverse_sqrt has no power: it goes with polynomial":       {Name: "inverse_sqrt", Power: 2},
		"schedule warmup_stable_decay needs decay":                          {Name: "wsd"},
		"no schedule is called \"rex\"":                                     {Name: "rex"},
	} {
		if _, err := NewSchedule(c, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
