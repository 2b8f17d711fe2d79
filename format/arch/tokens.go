package arch

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/internal/tokenizer"
)

// The matrices with a row for each token.
const (
	EmbeddingName = "token_embd.weight"
	HeadName      = "output.weight"
)

// AddedToken is a token that a model gets beside those of its file.
type AddedToken struct {
	ID    int    `json:"id"`
	Token string `json:"token"`
	// Special tokens are control tokens in GGUF's terms: a text has them only where it may
	// hold special tokens, and they can be left out of what is shown. The others are tokens
	// of the user's, which every text has.
	Special bool `json:"special,omitempty"`
}

// TokenRows are rows of a matrix over the vocabulary, by token.
type TokenRows struct {
	IDs  []int32   // ascending
	Data []float32 // len(IDs) rows of the matrix's columns
}

// The ways in which the rows of new tokens begin.
const (
	InitMean  = "mean"  // the mean of the rows of all tokens that the model has
	InitWords = "words" // the mean of the rows of the pieces that the token is spelled with
	InitZero  = "zero"
)

// TokenInits lists them, the default first.
func TokenInits() []string { return []string{InitMean, InitWords, InitZero} }

// Tokens is what [Model.WithTokens] puts into a model.
type Tokens struct {
	Added []AddedToken         // beyond the model's own, by ascending id
	Init  string               // how rows begin that Rows has none for; "" is [InitMean]
	Rows  map[string]TokenRows // by matrix, in place of its own rows or beyond them
}

// NewTokens gives texts ids as Hugging Face's tokenizers do: those that follow the last
// token in use, first of what pads the vocabulary. Tokens that the model has, found in a
// text before all else as new ones are, are left out. One that is a piece of its vocabulary,
// an empty one and one that is given twice are errors.
func (m *Model) NewTokens(texts []string) ([]AddedToken, error) {
	tokens, types := m.vocabulary()
	if tokens == nil {
		return nil, format.Usagef("%s has no tokenizer to add tokens to", m.Path)
	}
	at := map[string]int{}
	for i, t := range tokens {
		at[t] = i
	}
	next, seen := inUse(tokens, types), map[string]bool{}
	var added []AddedToken
	for _, t := range texts {
		if t == "" {
			return nil, format.Usagef("a new token is empty")
		}
		if seen[t] {
			return nil, format.Usagef("%q is given twice", t)
		}
		seen[t] = true
		if id, ok := at[t]; ok && id < next {
			if id < len(types) && (types[id] == int64(tokenizer.Control) || types[id] == int64(tokenizer.UserDefined)) {
				continue
			}
			return nil, format.Usagef("%q is a piece of the vocabulary of %s, number %d, and cannot be a token of its own: train its row with --train-tokens (train_tokens)", t, m.Path, id)
		}
		added = append(added, AddedToken{ID: next + len(added), Token: t})
	}
	return added, nil
}

// vocabulary gives the tokens of the metadata and their types; nil types: all normal.
func (m *Model) vocabulary() ([]string, []int64) {
	tokens, _ := m.Meta.Strs(tok + "tokens")
	types, _ := m.Meta.Ints(tok + "token_type")
	return tokens, types
}

// inUse is the number of tokens without the unused ones at the end.
func inUse(tokens []string, types []int64) int {
	n := len(tokens)
	for n > 0 && n <= len(types) && types[n-1] == int64(tokenizer.Unused) {
		n--
	}
	return n
}

// TokensInUse is the number of tokens that the model's tokenizer has, without the unused
// ones at the end: the id of the next new one.
func (m *Model) TokensInUse() int { return inUse(m.vocabulary()) }

// WithTokens gives m with further tokens, and with rows of its embedding and its head in the
// place of its own: a matrix gets more rows where an id is beyond it, and where rows keep their
// type, those given are encoded in it and all others keep their bytes. It shares m's files;
// closing it closes nothing. Ids with neither a token nor a row, and rows of another width,
// are errors. The data of t stays in use.
func (m *Model) WithTokens(t Tokens) (*Model, error) {
	embed := m.View(EmbeddingName)
	if embed == nil || len(embed.Shape) != 2 {
		return nil, format.Usagef("%s has no embedding that tokens could be added to", m.Path)
	}
	for _, name := range []string{"token_embd.scale", "output.scale"} {
		if m.View(name) != nil {
			return nil, format.Unsupported("rows of tokens in a matrix whose factor stands in %s: quantize the float model to another type", name)
		}
	}
	n := embed.Shape[0]
	for _, a := range t.Added {
		n = max(n, int64(a.ID)+1)
	}
	if n-embed.Shape[0] > int64(len(t.Added)) {
		return nil, format.Usagef("%d new tokens have numbers up to %d, where %s has %d rows: there are gaps", len(t.Added), n-1, m.Path, embed.Shape[0])
	}
	meta := m.Meta
	if len(t.Added) > 0 {
		var err error
		if meta, err = m.withVocabulary(t.Added, int(n)); err != nil {
			return nil, err
		}
	}
	views := slices.Clone(m.Views)
	for i, v := range views {
		if v.Name != EmbeddingName && v.Name != HeadName {
			continue
		}
		rows := t.Rows[v.Name]
		if len(t.Added) > 0 {
			var err error
			if rows, err = m.begun(v, rows, &t); err != nil {
				return nil, fmt.Errorf("tensor %s: %w", v.Name, err)
			}
		}
		if len(rows.IDs) == 0 {
			continue
		}
		over, err := rowsOver(v, rows, n)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", v.Name, err)
		}
		w := *v
		w.Shape = []int64{n, v.Shape[1]}
		w.Rows, w.Why = over, fmt.Sprintf("the rows of %d tokens", len(rows.IDs))
		views[i] = &w
	}
	for name := range t.Rows {
		if m.View(name) == nil || name != EmbeddingName && name != HeadName {
			return nil, format.Usagef("%s has no matrix %s with rows of tokens", m.Path, name)
		}
	}
	out := NewModel(m.Path, meta, views)
	out.Notes, out.Added = m.Notes, append(slices.Clone(m.Added), t.Added...)
	return out, nil
}

// With gives the model other tensors, which keep their names, and shares all else; closing
// it closes nothing.
func (m *Model) With(views []*format.View) *Model {
	out := NewModel(m.Path, m.Meta, views)
	out.Added = m.Added
	return out
}

// withVocabulary is the metadata with more tokens: n in all. A model that was opened without
// its tokenizer stays without one.
func (m *Model) withVocabulary(added []AddedToken, n int) (*gguf.Meta, error) {
	old, oldTypes := m.vocabulary()
	if old == nil {
		return m.Meta, nil
	}
	tokens, types := slices.Clone(old), make([]int32, len(old), n)
	for i := range types {
		if types[i] = int32(tokenizer.Normal); i < len(oldTypes) {
			types[i] = int32(oldTypes[i])
		}
	}
	for i := len(tokens); i < n; i++ {
		tokens, types = append(tokens, "[PAD"+strconv.Itoa(i)+"]"), append(types, int32(tokenizer.Unused))
	}
	used := inUse(old, oldTypes)
	for _, a := range added {
		if a.ID < 0 || a.ID >= n {
			return nil, format.Usagef("token %q has number %d", a.Token, a.ID)
		}
		if a.ID < used {
			return nil, format.Usagef("token %q is to be number %d, which is %q in %s", a.Token, a.ID, old[a.ID], m.Path)
		}
		tokens[a.ID], types[a.ID] = a.Token, int32(tokenizer.UserDefined)
		if a.Special {
			types[a.ID] = int32(tokenizer.Control)
		}
	}
	meta := m.Meta.Clone()
	meta.Set(tok+"tokens", tokens)
	meta.Set(tok+"token_type", types)
	if scores, ok := m.Meta.Floats(tok + "scores"); ok {
		// What the reference converter gives added tokens.
		const addedScore = -1000
		more := make([]float32, n)
		for i := range more {
			if more[i] = addedScore; i < len(scores) {
				more[i] = float32(scores[i])
			}
		}
		for _, a := range added {
			more[a.ID] = addedScore
		}
		meta.Set(tok+"scores", more)
	}
	if key := m.Arch + ".vocab_size"; m.Meta.Has(key) {
		meta.Set(key, uint32(n))
	}
	return meta, nil
}

// begun adds to rows those that the added tokens begin with, where rows has none.
func (m *Model) begun(v *format.View, rows TokenRows, t *Tokens) (TokenRows, error) {
	_, cols := v.Rows.Dims()
	var spec *tokenizer.Tokenizer
	var mean []float32
	out := rows
	for _, a := range t.Added {
		at, has := slices.BinarySearch(out.IDs, int32(a.ID))
		if has {
			continue
		}
		row := make([]float32, cols)
		var err error
		switch t.Init {
		case "", InitMean:
			if mean == nil {
				if mean, err = m.meanRow(v); err != nil {
					return out, err
				}
			}
			copy(row, mean)
		case InitWords:
			if spec == nil {
				if spec, err = m.tokenizer(); err != nil {
					return out, err
				}
			}
			if err := meanOf(row, v.Rows, spec.Encode(a.Token, tokenizer.EncodeOptions{})); err != nil {
				return out, err
			}
		case InitZero:
		default:
			return out, format.Usagef("new tokens begin as mean, words or zero, not %q", t.Init)
		}
		if len(out.IDs) == len(rows.IDs) { // the caller keeps its own
			out.IDs, out.Data = slices.Clone(rows.IDs), slices.Clone(rows.Data)
		}
		out.IDs = slices.Insert(out.IDs, at, int32(a.ID))
		out.Data = slices.Insert(out.Data, at*int(cols), row...)
	}
	return out, nil
}

// tokenizer is the model's own.
func (m *Model) tokenizer() (*tokenizer.Tokenizer, error) {
	spec, err := tokenizer.SpecFromGGUF(m.Meta)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return tokenizer.New(spec)
}

// meanRow is the mean of the rows of all tokens in use, summed in float64 in their order.
func (m *Model) meanRow(v *format.View) ([]float32, error) {
	tokens, types := m.vocabulary()
	rows, cols := v.Rows.Dims()
	n := min(int64(inUse(tokens, types)), rows)
	if n == 0 {
		n = rows
	}
	sum := make([]float64, cols)
	const block = 64
	buf := make([]float32, block*cols)
	for r := int64(0); r < n; r += block {
		part := buf[:min(block, n-r)*cols]
		if err := v.Rows.ReadRows(part, r); err != nil {
			return nil, err
		}
		for i, x := range part {
			sum[int64(i)%cols] += float64(x)
		}
	}
	out := make([]float32, cols)
	for i, s := range sum {
		out[i] = float32(s / float64(n))
	}
	return out, nil
}

// meanOf makes dst the mean of the rows of ids.
func meanOf(dst []float32, rows format.RowReader, ids []int32) error {
	have, _ := rows.Dims()
	sum := make([]float64, len(dst))
	one := make([]float32, len(dst))
	n := 0
	for _, id := range ids {
		if int64(id) >= have {
			continue
		}
		if err := rows.ReadRows(one, int64(id)); err != nil {
			return err
		}
		for i, x := range one {
			sum[i] += float64(x)
		}
		n++
	}
	for i, s := range sum {
		dst[i] = float32(s / float64(max(n, 1)))
	}
	return nil
}

// rowsOver lays rows over those of a view, and beyond them up to n.
func rowsOver(v *format.View, rows TokenRows, n int64) (format.RowReader, error) {
	have, cols := v.Rows.Dims()
	if int64(len(rows.Data)) != int64(len(rows.IDs))*cols {
		return nil, format.Usagef("%d numbers for the rows of %d tokens, which have %d each", len(rows.Data), len(rows.IDs), cols)
	}
	o := overlay{src: v.Rows, have: have, n: n, cols: cols, rows: rows}
	beyond := int64(0)
	for i, id := range rows.IDs {
		if id < 0 || int64(id) >= n || i > 0 && id <= rows.IDs[i-1] {
			return nil, format.Usagef("a row for token %d of %d: ids must ascend, and be in the vocabulary", id, n)
		}
		if int64(id) >= have {
			beyond++
		}
	}
	if beyond != n-have {
		return nil, format.Usagef("the matrix grows from %d rows to %d, and %d of those have no values", have, n, n-have-beyond)
	}
	raw, ok := v.Rows.(format.RawReader)
	if !ok {
		return &o, nil
	}
	codec, err := format.EncoderOf(raw.RawType())
	if err != nil {
		return &o, nil // values can be had, bytes cannot
	}
	size, err := raw.RawType().RowBytes(cols)
	if err != nil {
		return nil, err
	}
	return &rawOverlay{overlay: o, raw: raw, codec: codec, rowBytes: size}, nil
}

// overlay is a matrix in which some rows are others, and more than it had.
type overlay struct {
	src           format.RowReader
	have, n, cols int64
	rows          TokenRows
}

func (o *overlay) Dims() (rows, cols int64) { return o.n, o.cols }

// each calls own for the rows asked for that are the source's, a run at a time, and over for
// each of the others: row at of those asked for is row i of o.rows.
func (o *overlay) each(row, n int64, own func(at, from, n int64) error, over func(at int64, i int) error) error {
	if row < 0 || n < 0 || row+n > o.n {
		return fmt.Errorf("rows %d to %d of %d", row, row+n, o.n)
	}
	i, _ := slices.BinarySearch(o.rows.IDs, int32(row))
	for at := int64(0); at < n; {
		next := n
		if i < len(o.rows.IDs) {
			next = min(n, int64(o.rows.IDs[i])-row)
		}
		if next > at {
			if err := own(at, row+at, next-at); err != nil {
				return err
			}
			at = next
		}
		if at < n {
			if err := over(at, i); err != nil {
				return err
			}
			at, i = at+1, i+1
		}
	}
	return nil
}

func (o *overlay) row(i int) []float32 { return o.rows.Data[int64(i)*o.cols : int64(i+1)*o.cols] }

func (o *overlay) ReadRows(dst []float32, row int64) error {
	if o.cols == 0 {
		return nil
	}
	return o.each(row, int64(len(dst))/o.cols, func(at, from, n int64) error {
		return o.src.ReadRows(dst[at*o.cols:(at+n)*o.cols], from)
	}, func(at int64, i int) error {
		copy(dst[at*o.cols:(at+1)*o.cols], o.row(i))
		return nil
	})
}

// Release gives back what the source holds of a mapped file.
func (o *overlay) Release() {
	if r, ok := o.src.(interface{ Release() }); ok {
		r.Release()
	}
}

// rawOverlay gives bytes, too: the source's, and the other rows encoded in its type.
type rawOverlay struct {
	overlay
	raw      format.RawReader
	codec    format.Codec
	rowBytes int64
}

func (o *rawOverlay) RawType() format.Type { return o.raw.RawType() }

func (o *rawOverlay) ReadRaw(dst []byte, row int64) error {
	if o.rowBytes == 0 {
		return nil
	}
	return o.each(row, int64(len(dst))/o.rowBytes, func(at, from, n int64) error {
		return o.raw.ReadRaw(dst[at*o.rowBytes:(at+n)*o.rowBytes], from)
	}, func(at int64, i int) error {
		return format.AtRow(o.codec.Encode(dst[at*o.rowBytes:(at+1)*o.rowBytes], o.row(i), int(o.cols), nil), row+at)
	})
}
