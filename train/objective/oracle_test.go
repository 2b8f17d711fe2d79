package objective

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/nlpodyssey/safetensors"
)

const pairs, width = 6, 9

// load reads a recorded file as float64 tensors.
func load(t *testing.T, name string) map[string][]float64 {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "dpo", name))
	if err != nil {
		t.Fatal(err)
	}
	st, err := safetensors.Deserialize(b)
	if err != nil {
		t.Fatal(err)
	}
	data := map[string][]float64{}
	for _, n := range st.Names() {
		v, _ := st.Tensor(n)
		raw := v.Data()
		n64 := 1
		for _, d := range v.Shape() {
			n64 *= int(d)
		}
		x := make([]float64, n64)
		for i := range x {
			switch {
			case len(raw) == 4*n64:
				x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
			case strings.HasSuffix(n, "label"):
				x[i] = float64(binary.LittleEndian.Uint64(raw[8*i:]))
			default:
				x[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
			}
		}
		data[n] = x
	}
	return data
}

// TestRecorded compares every loss and its derivative by each token's log-probability
// with what torch's autograd recorded. Measured: in float64 8e-16 of the largest
// derivative; against the recordings in float32 3.2e-7.
func TestRecorded(t *testing.T) {
	t.Parallel()
	in, want := load(t, "inputs.safetensors"), load(t, "losses.safetensors")
	var settings map[string]struct {
		Loss           string
		Beta           float64
		Gamma          float64
		LabelSmoothing float64 `json:"label_smoothing"`
		CPOAlpha       float64 `json:"cpo_alpha"`
		RPOAlpha       float64 `json:"rpo_alpha"`
		Desirable      float64 `json:"desirable_weight"`
		Undesirable    float64 `json:"undesirable_weight"`
	}
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "dpo", "losses.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &settings); err != nil {
		t.Fatal(err)
	}
	completion := func(i int, policy, ref, mask string) (c Completion) {
		for j := i * width; j < (i+1)*width; j++ {
			if in[mask][j] != 0 {
				c.LogP += in[policy][j]
				c.Ref += in[ref][j]
				c.Tokens++
			}
		}
		return c
	}
	ours := map[string]string{"sigmoid": "dpo", "exo_pair": "exo", "apo_zero": "apo-zero", "apo_down": "apo-down"}
	worst, worst32 := 0.0, 0.0
	for name, s := range settings {
		if n, ok := ours[s.Loss]; ok {
			s.Loss = n
		}
		o, err := New(Settings{Name: s.Loss, Beta: s.Beta, Gamma: s.Gamma, LabelSmoothing: s.LabelSmoothing,
			NLL: s.CPOAlpha + s.RPOAlpha, Desirable: s.Desirable, Undesirable: s.Undesirable})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kl := 0.0
		if o.Kind() == Labels {
			var mismatched []Completion
			for i := range pairs {
				mismatched = append(mismatched, completion(i, "kl", "kl_ref", "kl_mask"))
			}
			kl = o.KL(mismatched)
			if math.Abs(kl-want[name+".kl"][0]) > 1e-12 {
				t.Errorf("%s: KL is %v, recorded %v", name, kl, want[name+".kl"][0])
			}
		}
		tokens, nll := 0, 0.0
		for i := range pairs {
			c := completion(i, "chosen", "ref_chosen", "chosen_mask")
			tokens += c.Tokens
			nll -= c.LogP
		}
		loss := o.NLL * nll / float64(tokens)
		var gradients [2][]float64
		for i := range gradients {
			gradients[i] = make([]float64, pairs*width)
		}
		for i := range pairs {
			e := Example{Chosen: completion(i, "chosen", "ref_chosen", "chosen_mask"), Rejected: completion(i, "rejected", "ref_rejected", "rejected_mask")}
			first := 0
			if o.Kind() == Labels && in["label"][i] == 0 {
				e.Chosen, e.Bad, first = e.Rejected, true, 1
			}
			r := o.Example(e, kl)
			loss += r.Loss / pairs
			for j := i * width; j < (i+1)*width; j++ {
				if in[[]string{"chosen_mask", "rejected_mask"}[first]][j] != 0 {
					gradients[first][j] += r.Chosen / pairs
				}
				if o.Kind() == Pairs && in["rejected_mask"][j] != 0 {
					gradients[1][j] += r.Rejected / pairs
				}
				if in["chosen_mask"][j] != 0 {
					gradients[0][j] -= o.NLL / float64(tokens)
				}
			}
		}
		for _, c := range []struct {
			suffix string
			tol    float64
			worst  *float64
		}{{"", 1e-13, &worst}, {".f32", 2e-6, &worst32}} {
			if d := math.Abs(loss-want[name+".loss"+c.suffix][0]) / loss; !(d <= c.tol) {
				t.Errorf("%s: loss %v, recorded%s %v", name, loss, c.suffix, want[name+".loss"+c.suffix])
			}
			for i, side := range []string{"chosen", "rejected"} {
				recorded := want[name+".grad_"+side+c.suffix]
				largest := 0.0
				for _, g := range recorded {
					largest = math.Max(largest, math.Abs(g))
				}
				for j, g := range recorded {
					d := math.Abs(gradients[i][j] - g)
					if largest > 0 {
						d /= largest
					}
					*c.worst = math.Max(*c.worst, d)
					if !(d <= c.tol) {
						t.Fatalf("%s: derivative %d of the %s answers is %v, recorded%s %v", name, j, side, gradients[i][j], c.suffix, g)
					}
				}
			}
		}
	}
	t.Logf("worst difference of a derivative: %.2g in float64, %.2g against float32", worst, worst32)
}

// TestDerivatives compares with differences at points further out than the recorded.
func TestDerivatives(t *testing.T) {
	t.Parallel()
	for _, name := range Names()[1:] {
		o, err := New(Settings{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range []Example{
			{Chosen: Completion{-3, -5, 4}, Rejected: Completion{-9, -2, 7}},
			{Chosen: Completion{-90, -50, 3}, Rejected: Completion{-1e-3, -80, 2}},
			{Chosen: Completion{-1e-4, -300, 1}, Rejected: Completion{-500, -2, 9}, Bad: true},
		} {
			r := o.Example(e, 0.3)
			if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
				t.Errorf("%s: the loss of example %d is %v", name, i, r.Loss)
			}
			for side, d := range []float64{r.Chosen, r.Rejected} {
				if o.Kind() == Labels && side == 1 {
					continue
				}
				at := func(h float64) float64 {
					x := e
					[]*Completion{&x.Chosen, &x.Rejected}[side].LogP += h
					return o.Example(x, 0.3).Loss
				}
				const h = 1e-6
				if got := (at(h) - at(-h)) / (2 * h); math.Abs(got-d) > 1e-5*(1+math.Abs(d)) {
					t.Errorf("%s: example %d, side %d: the loss changes by %v, the derivative is %v", name, i, side, got, d)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, s := range []Settings{
		{Name: "ppo"}, {Name: "sft", Beta: 1}, {Name: "dpo", Beta: -1}, {Name: "dpo", LabelSmoothing: 0.5}, {Name: "ipo", LabelSmoothing: 0.1},
		{Name: "dpo", Gamma: 1}, {Name: "orpo", NLL: 2}, {Name: "kto", NLL: 1}, {Name: "dpo", Desirable: 2}, {Name: "dpo", Beta: math.NaN()},
	} {
		if _, err := New(s); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	if o, err := New(Settings{}); err != nil || o.Name != "sft" || o.NeedsReference() {
		t.Errorf("%+v, %v", o, err)
	}
}
