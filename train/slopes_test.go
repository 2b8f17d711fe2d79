package train

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/rng"
)

// TestKindSlopes compares, for each kind of adapter, the gradients of a step with the
// slopes of its loss: of all A together along their gradient, of all B, of all
// magnitudes and of all rows of tokens. It goes the way that training goes, with dropout and noise as they are and the
// loss of routers where that takes part. What is seen is the rounding of a loss in
// float32, up to 5e-4.
func TestKindSlopes(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := kindRun(t, k.base, k.set)
			if c.Adapter.MergeAware {
				t.Skip("codes have no slopes: train/model compares these gradients with those of the merged model")
			}
			c.Adapter.Float32 = true // else what is moved is rounded
			r, err := open(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.base.Close()
			if err := r.ready(background); err != nil {
				t.Fatal(err)
			}
			l := r.lora
			for i := range l.params {
				p := &l.params[i]
				s := rng.New(3, p.Name)
				for j := range p.Value {
					x := 2*s.Uniform(uint64(j)) - 1
					switch {
					case strings.HasSuffix(p.Name, loraB): // zero at first, and A without a gradient
						p.Value[j] += x / 32
					case strings.HasSuffix(p.Name, loraM):
						p.Value[j] *= 1 + x/8
					}
				}
			}
			l.sync()
			samples := r.train[:3]
			value := func() float64 {
				got, err := l.gradient(context.Background(), r.base.Model, r.objective, samples, &c, 0)
				if err != nil {
					t.Fatal(err)
				}
				return got.loss + c.RouterLoss*got.router
			}
			value()
			grads := make([][]float32, len(l.params))
			for i := range l.params {
				grads[i] = slices.Clone(l.params[i].Grad)
			}
			for _, ending := range []string{loraA, loraB, loraM, rowsPart} {
				var squares float64
				has := false
				for i, g := range grads {
					if strings.HasSuffix(l.params[i].Name, ending) {
						has = true
						squares += dot64(g, g)
					}
				}
				if squares == 0 {
					if has || ending == loraM && c.Adapter.DoRA {
						t.Errorf("%s have no gradient", ending)
					}
					continue
				}
				norm := math.Sqrt(squares)
				at := func(step float64) float64 {
					was := make([][]float32, len(grads))
					for i, g := range grads {
						p := &l.params[i]
						if !strings.HasSuffix(p.Name, ending) {
							continue
						}
						was[i] = slices.Clone(p.Value)
						for j := range g {
							p.Value[j] += float32(step / norm * float64(g[j]))
						}
					}
					// The adapter is not said to have changed: the norms of DoRA are constants.
					v := value()
					for i, w := range was {
						copy(l.params[i].Value, w)
					}
					return v
				}
				h := 8e-3 / norm
				if r.base.Model.MoE.Experts > 0 { // no token may choose other experts on the way
					h = 2e-4 / norm
				}
				s1, s2 := (at(h)-at(-h))/(2*h), (at(2*h)-at(-2*h))/(4*h)
				if got := (4*s1 - s2) / 3; math.Abs(got-norm) > 2e-3*norm {
					t.Errorf("%s: the loss changes by %.6g, the gradient says %.6g", ending, got, norm)
				} else {
					t.Logf("%s: %.1e", ending, math.Abs(got-norm)/norm)
				}
			}
		})
	}
}
