package merge

import (
	"fmt"
	"slices"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
)

const tokensKey = "tokenizer.ggml.tokens"

// tokenizer finds whose tokenizer the result has. Where the recipe asks for one and
// vocabularies differ, embeddings and heads are blended token by token: see byToken.
func (b *blender) tokenizer() error {
	from := b.template
	switch b.r.Tokenizer {
	case "":
	case "base":
		if b.r.Base == "" {
			return format.Usagef("tokenizer source base, and the recipe has no base_model")
		}
	case "union":
		var err error
		if from, err = b.union(); err != nil {
			return err
		}
	default:
		if from = b.models[b.r.Tokenizer]; from == nil {
			return format.Usagef("the tokenizer's source %q is no model of the recipe", b.r.Tokenizer)
		}
	}
	want, has := from.Meta.Strs(tokensKey)
	for _, path := range b.r.Models() {
		m := b.models[path]
		got, ok := m.Meta.Strs(tokensKey)
		switch {
		case !ok && !has || slices.Equal(got, want):
		case b.r.Tokenizer == "":
			b.notes = append(b.notes, fmt.Sprintf("%s has other tokens than %s, whose tokenizer the result has; a tokenizer_source would match them", path, from.Path))
		case !ok || !has:
			return format.Unsupported("one of %s and %s has no tokenizer", path, from.Path)
		default:
			b.vocab = want
		}
	}
	if from != b.template {
		b.tokens = from
	}
	return nil
}

// union is the model whose vocabulary holds those of all others. No tokenizer is put
// together of several.
func (b *blender) union() (*arch.Model, error) {
	best := b.template
	all := map[string]bool{}
	for _, path := range b.r.Models() {
		tokens, _ := b.models[path].Meta.Strs(tokensKey)
		for _, t := range tokens {
			all[t] = true
		}
		if have, _ := best.Meta.Strs(tokensKey); len(tokens) > len(have) {
			best = b.models[path]
		}
	}
	have, _ := best.Meta.Strs(tokensKey)
	for _, t := range have {
		delete(all, t)
	}
	if len(all) > 0 {
		return nil, format.Unsupported("the union of the vocabularies is that of no model: %s, the largest, lacks %d tokens of the others", best.Path, len(all))
	}
	return best, nil
}

// rows gives a model's rows by token.
func (b *blender) rows(m *arch.Model) map[string]int64 {
	if r := b.rowOf[m]; r != nil {
		return r
	}
	r := map[string]int64{}
	tokens, _ := m.Meta.Strs(tokensKey)
	for i, t := range tokens {
		r[t] = int64(i)
	}
	if b.rowOf == nil {
		b.rowOf = map[*arch.Model]map[string]int64{}
	}
	b.rowOf[m] = r
	return r
}

// byToken puts the rows of an embedding or head into the order of the result's
// vocabulary. A token that the model lacks has the base's row, or where there is no
// base or it lacks the token, too, the mean of the models that have it.
func (b *blender) byToken(s *sourceTensor, name string) error {
	if s.view == nil {
		return nil // named by the caller
	}
	own := b.rows(b.models[s.model])
	t := &tokenRows{n: int64(len(b.vocab)), from: make([][]tokenRow, len(b.vocab))}
	_, t.cols = s.view.Rows.Dims()
	models := b.r.Models()
	if b.r.Base != "" {
		models = models[1:] // Models lists the base first
	}
	for i, token := range b.vocab {
		add := func(m *arch.Model) bool {
			row, ok := b.rows(m)[token]
			v := source(m, name)
			if !ok || v == nil {
				return false
			}
			t.from[i] = append(t.from[i], tokenRow{v.Rows, row})
			return true
		}
		if _, ok := own[token]; ok {
			add(b.models[s.model])
			continue
		}
		if base := b.models[b.r.Base]; base != nil && add(base) {
			continue
		}
		for _, path := range models {
			add(b.models[path])
		}
	}
	for i := range t.from {
		for _, r := range t.from[i] {
			if rows, cols := r.rows.Dims(); r.row >= rows || cols != t.cols {
				return format.Unsupported("%s: the tokenizer has token %q as number %d, %s has %d rows of %d", s.model, b.vocab[i], r.row, name, rows, cols)
			}
		}
	}
	v := *s.view
	v.Shape = []int64{t.n, t.cols}
	v.Rows = t
	s.view = &v
	return nil
}

// tokenRow is a row of a matrix.
type tokenRow struct {
	rows format.RowReader
	row  int64
}

// tokenRows is a matrix each of whose rows is the mean of rows elsewhere.
type tokenRows struct {
	n, cols int64
	from    [][]tokenRow
}

func (t *tokenRows) Dims() (rows, cols int64) { return t.n, t.cols }

func (t *tokenRows) ReadRows(dst []float32, row int64) error {
	if t.cols == 0 {
		return nil
	}
	n := int64(len(dst)) / t.cols
	if row < 0 || row+n > t.n {
		return fmt.Errorf("rows %d to %d of %d", row, row+n, t.n)
	}
	for i := range n {
		out := dst[i*t.cols : (i+1)*t.cols]
		from := t.from[row+i]
		if len(from) == 1 {
			if err := from[0].rows.ReadRows(out, from[0].row); err != nil {
				return err
			}
			continue
		}
		clear(out)
		one := make([]float32, t.cols)
		for _, f := range from {
			if err := f.rows.ReadRows(one, f.row); err != nil {
				return err
			}
			for j, v := range one {
				out[j] += v / float32(len(from))
			}
		}
	}
	return nil
}
