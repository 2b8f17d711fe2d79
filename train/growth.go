package train

import (
	"context"
	"fmt"
	"math"

	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// growthPoints is about how many times in a run the size of each change is logged.
const growthPoints = 40

// grows says whether the sizes are logged after a step.
func (r *runner) grows(step int) bool {
	every := (r.steps + growthPoints - 1) / growthPoints
	return step%every == 0 || step == 1 || step == r.steps
}

// growth is the Frobenius norm of what the adapter changes of each matrix, scale·B·A and
// what it began with taken off, found without making the product: |B·A|² is the trace of
// (Bᵀ·B)·(A·Aᵀ). Of a stack it is that of all experts together.
func (l *lora) growth() map[string]float64 {
	out := make(map[string]float64, len(l.names))
	for _, name := range l.names {
		pairs := []*model.Pair{l.adapter.Pairs[name]}
		if f := l.adapter.Fixed[name]; f != nil {
			pairs = append(pairs, f)
		}
		experts := pairs[0].A.Rows / pairs[0].Rank()
		sum := 0.0
		for e := range experts {
			sum += changeSquared(pairs, e, experts)
		}
		out[name] = math.Sqrt(math.Max(0, sum))
	}
	return out
}

// rowGrowth adds the norm of what rows of tokens differ by from those of the base.
func (b *Base) rowGrowth(all map[string]*model.Rows, into map[string]float64) error {
	for name, rows := range all {
		was, sum := make([]float32, rows.Data.Cols), 0.0
		for i, id := range rows.IDs {
			if err := b.Source.View(name).Rows.ReadRows(was, int64(id)); err != nil {
				return fmt.Errorf("tensor %s: %w", name, err)
			}
			for j, x := range rows.Data.Row(i) {
				d := float64(x) - float64(was[j])
				sum += float64(d * d)
			}
		}
		into[name] = math.Sqrt(sum)
	}
	return nil
}

// changeSquared is the squared norm of the sum of pairs' scale·B·A, of one expert.
func changeSquared(pairs []*model.Pair, expert, experts int) (sum float64) {
	var down [][]float32 // rows of A
	for _, p := range pairs {
		for i := range p.Rank() {
			down = append(down, p.A.Row(expert*p.Rank()+i))
		}
	}
	n := len(down)
	left := make([]float64, n*n)
	rows := pairs[0].B.Rows / experts
	up := make([]float64, n)
	for r := range rows {
		at := 0
		for _, p := range pairs {
			for _, v := range p.B.Row(expert*rows + r) {
				up[at] = float64(p.Scale) * float64(v)
				at++
			}
		}
		for i, v := range up {
			row := left[i*n : (i+1)*n]
			for j, w := range up {
				row[j] += float64(v * w)
			}
		}
	}
	for i := range n {
		for j := range n {
			sum += float64(left[i*n+j] * dot64(down[i], down[j]))
		}
	}
	return sum
}

// SampleText is what the model under training answered, the most likely token each time.
type SampleText struct {
	Prompt  string `json:"prompt"`
	Text    string `json:"text"`
	Stopped bool   `json:"stopped"` // the model ended it, not the limit
}

// sampleTexts answers the run's prompts with the adapter as it is. Nothing of the training
// depends on it.
func (r *runner) sampleTexts(ctx context.Context) (list []SampleText, err error) {
	c := &r.cfg
	for i, prompt := range c.SamplePrompts {
		r.tell(Progress{Phase: "answering", Done: i, Total: len(c.SamplePrompts)})
		var ids []int32
		if r.base.Template != nil && c.Samples.Chat != "never" {
			if _, ids, err = r.base.Encoder(c.Context, c.Samples).Prompt([]data.Message{data.NewMessage("user", prompt)}, nil); err != nil {
				return nil, err
			}
		} else {
			ids = r.base.Tokenizer.Encode(prompt, tokenizer.EncodeOptions{AddSpecial: true})
		}
		s, err := r.base.Model.NewSession(len(ids)+c.SampleTokens, model.Scaled{Adapter: r.lora.adapter, Weight: 1})
		if err != nil {
			return nil, err
		}
		g, err := Generate(ctx, s, r.base.Tokenizer, ids, GenerateOptions{Max: c.SampleTokens}, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, SampleText{Prompt: prompt, Text: g.Text, Stopped: g.Stopped})
	}
	return list, nil
}
