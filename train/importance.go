package train

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/fmath"
	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/quant"
	"github.com/graft-lora/graft/train/model"
)

// ImportanceOptions says how an importance matrix is computed. The zero value of all
// but Context is good.
type ImportanceOptions struct {
	Context   int // tokens of a piece of text, at least 16
	Chunks    int // pieces to run at most; 0 is all
	FromChunk int // pieces at the beginning to leave out

	ParseSpecial  bool // names of control tokens inside the text are those tokens
	ProcessOutput bool // the output head too, where it is a tensor of its own
	NoPerplexity  bool // the head is not run for the perplexity

	// Limit is how many tokens are run at once, 2048 if it is 0; at least one piece is.
	Limit int
	// Progress, if not nil, is told after every pass what is done.
	Progress func(p ImportanceProgress)
	// Every and Save: after each Every pieces Save is given the matrix as it is then,
	// the pieces that were in it before included. It must not keep it.
	Every int
	Save  func(m *quant.Imatrix) error
}

// ImportanceProgress is how far a computation is.
type ImportanceProgress struct {
	Done, Total     int     // pieces
	Perplexity      float64 // so far, of the second halves of the pieces; 0 without
	PerplexityError float64 // standard error of it
}

// Importance runs text through the model and adds to m, for every matrix of the
// blocks, the squares of what goes into each of its columns and the number of tokens.
// Stacks of experts have both for each expert. m.ChunkSize must be o.Context, which
// it becomes if m is empty.
//
// The pieces are those of llama-imatrix: the tokens of the whole text, with BOS in
// front where the model wants it, in pieces of o.Context of which a last, shorter one
// is left out, and the first token of each replaced by BOS. Squares are added in
// float32, in the order of the tokens, so that a run that goes on from a saved
// matrix ends with the bytes of one that was not interrupted. The result does not
// depend on the number of threads, nor on o.Limit.
//
// The model must not be used otherwise while Importance runs.
func (b *Base) Importance(ctx context.Context, m *quant.Imatrix, text, name string, o ImportanceOptions) (ImportanceProgress, error) {
	var p ImportanceProgress
	if o.Context < 16 {
		return p, format.Usagef("pieces of %d tokens: an importance matrix wants at least 16", o.Context)
	}
	if o.Chunks < 0 || o.FromChunk < 0 {
		return p, format.Usagef("a negative number of pieces")
	}
	if m.ChunkSize == 0 && len(m.Entries) == 0 {
		m.ChunkSize = o.Context
	}
	if m.ChunkSize != o.Context {
		return p, format.Usagef("the matrix counts pieces of %d tokens, not of %d", m.ChunkSize, o.Context)
	}
	// Files end with a line feed that is not meant; the reference tool drops it too.
	ids := b.Tokenizer.Encode(strings.TrimSuffix(text, "\n"), tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: o.ParseSpecial})
	pieces := len(ids)/o.Context - o.FromChunk
	if pieces < 1 {
		return p, format.Usagef("%s has %d tokens, which do not fill a piece of %d after %d that are left out", name, len(ids), o.Context, o.FromChunk)
	}
	ids = ids[o.FromChunk*o.Context:]
	if o.Chunks > 0 {
		pieces = min(pieces, o.Chunks)
	}
	p.Total = pieces
	limit := o.Limit
	if limit == 0 {
		limit = 2048
	}
	a := newAccumulator(b.Model, o.ProcessOutput)
	defer a.close()
	a.load(m)
	if name != "" {
		m.Datasets = append(m.Datasets, name)
	}
	before := m.Chunks
	var losses moments
	for p.Done < pieces {
		if err := ctx.Err(); err != nil {
			return p, err
		}
		n := min(max(limit/o.Context, 1), pieces-p.Done)
		if o.Every > 0 {
			n = min(n, o.Every-(before+p.Done)%o.Every)
		}
		if err := b.importancePass(ids[:n*o.Context], &o, &losses); err != nil {
			return p, err
		}
		if a.err != nil {
			return p, fmt.Errorf("%s: %w", b.Path, a.err)
		}
		ids = ids[n*o.Context:]
		p.Done += n
		if mean, dev := losses.mean(); losses.n > 0 {
			p.Perplexity = fmath.Exp(mean)
			p.PerplexityError = p.Perplexity * dev
		}
		if o.Progress != nil {
			o.Progress(p)
		}
		if o.Every > 0 && o.Save != nil && (before+p.Done)%o.Every == 0 {
			a.store(m)
			if err := o.Save(m); err != nil {
				return p, err
			}
		}
	}
	a.store(m)
	return p, nil
}

// importancePass runs pieces, the tokens of which are ids.
func (b *Base) importancePass(ids []int32, o *ImportanceOptions, losses *moments) error {
	batch := &model.Batch{IDs: append([]int32{}, ids...)}
	for first := 0; first < len(ids); first += o.Context {
		batch.Lens = append(batch.Lens, o.Context)
		if b.Tokenizer.AddsBOS() {
			batch.IDs[first] = b.Tokenizer.BOS()
		}
	}
	// The head runs for tokens that have a target: the second half of each piece for
	// the perplexity, all of them when its own input is wanted.
	counted := func(t int) bool { return t%o.Context >= o.Context/2 && t%o.Context < o.Context-1 }
	if o.ProcessOutput || !o.NoPerplexity {
		batch.Targets = make([]int32, len(ids))
		for t := range ids {
			switch {
			case counted(t):
				batch.Targets[t] = ids[t+1]
			case !o.ProcessOutput:
				batch.Targets[t] = model.Untrained
			}
		}
	}
	loss, err := b.Model.Loss(batch)
	if err != nil || o.NoPerplexity {
		return err
	}
	i := 0
	for t, target := range batch.Targets {
		if target >= 0 {
			if counted(t) {
				losses.one(float64(loss.PerToken[i]))
			}
			i++
		}
	}
	return nil
}

// accumulator collects the squares of what the model's hooks show it.
type accumulator struct {
	m       *model.Model
	pool    *kernel.Pool
	head    bool
	entries map[string]*quant.ImatrixEntry
	err     error
}

func newAccumulator(m *model.Model, head bool) *accumulator {
	a := &accumulator{m: m, pool: kernel.NewPool(0), head: head, entries: map[string]*quant.ImatrixEntry{}}
	m.OnInput = func(name string, x kernel.Mat) {
		if strings.HasPrefix(name, "blk.") || a.head && name == "output.weight" {
			a.add(name, 0, 1, x)
		}
	}
	m.OnExpertInput = func(name string, expert int, x kernel.Mat) {
		experts, _, _, _ := m.StackDims(name)
		a.add(name, expert, experts, x)
	}
	return a
}

func (a *accumulator) close() {
	a.m.OnInput, a.m.OnExpertInput = nil, nil
	a.pool.Close()
}

// add adds the rows of x, which went into matrix at of n.
func (a *accumulator) add(name string, at, n int, x kernel.Mat) {
	e := a.entries[name]
	if e == nil {
		e = &quant.ImatrixEntry{Name: name, Sums: make([]float32, n*x.Cols), Counts: make([]float32, n)}
		a.entries[name] = e
	}
	if len(e.Counts) != n || len(e.Sums) != n*x.Cols {
		a.fail("the matrix given has %d values and %d counts for %s, which has %d columns in %d matrices", len(e.Sums), len(e.Counts), name, x.Cols, n)
		return
	}
	e.Counts[at] += float32(x.Rows)
	sums := e.Sums[at*x.Cols : (at+1)*x.Cols]
	const strip = 64 // columns a worker adds up at a time
	a.pool.For((x.Cols+strip-1)/strip, func(job, _ int) {
		from, to := job*strip, min((job+1)*strip, x.Cols)
		part := sums[from:to]
		for t := range x.Rows {
			for j, v := range x.Row(t)[from:to] {
				part[j] += float32(v * v)
			}
		}
	})
	for _, v := range sums {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			a.fail("the input of %s is not finite", name)
			return
		}
	}
}

func (a *accumulator) fail(f string, args ...any) {
	if a.err == nil {
		a.err = fmt.Errorf(f, args...)
	}
}

// load begins with what m has.
func (a *accumulator) load(m *quant.Imatrix) {
	for i := range m.Entries {
		a.entries[m.Entries[i].Name] = &m.Entries[i]
	}
}

// store gives m what was collected.
func (a *accumulator) store(m *quant.Imatrix) {
	m.SetEntries(a.entries)
}
