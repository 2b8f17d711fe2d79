package merge

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/internal/testutil"
)

// tokensOf is an adapter with rows of an old token and two new ones on sprig, and a pair.
func tokensOf(base *arch.Model) *adapter.Adapter {
	rows := adapter.Matrix{Rows: 3, Cols: 256, Data: make([]float32, 3*256)}
	s := rng.New(1, "rows")
	for i := range rows.Data {
		rows.Data[i] = float32(s.Uniform(uint64(i))) - 0.5
	}
	pair := &adapter.Pair{Target: "blk.1.attn_q.weight", Expert: -1}
	a, b := adapter.Matrix{Rows: 1, Cols: 256, Data: make([]float32, 256)}, adapter.Matrix{Rows: 256, Cols: 1, Data: make([]float32, 256)}
	for i := range 256 {
		a.Data[i], b.Data[i] = float32(i%7)-3, float32(i%5)-2
	}
	pair.SetFactors(a, b, 0.001)
	ad := adapter.New("tokens", base.Arch, []*adapter.Pair{pair})
	ad.Tokens = &adapter.Tokens{
		Rows:  []adapter.TokenRows{{Target: arch.EmbeddingName, IDs: []int32{5, 751, 752}, Rows: rows}},
		Added: []arch.AddedToken{{ID: 751, Token: "<|think|>"}, {ID: 752, Token: "<|/think|>", Special: true}},
	}
	return ad
}

// TestJoinTokens merges rows of tokens into embeddings of every kind of type: they are encoded in it,
// all others keep their bytes, and so does every tensor that the adapter does not change.
func TestJoinTokens(t *testing.T) {
	t.Parallel()
	file, err := arch.Open(testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, typ := range []format.Type{format.F32, format.F16, format.BF16, format.Q8_0, format.Q4_0, format.Q5_1, format.Q6_K, format.Q4_K, format.Q2_K, format.IQ4_XS} {
		views := slices.Clone(file.Views)
		for i, v := range views {
			if v.Name == arch.EmbeddingName {
				views[i] = retyped(t, v, typ)
			}
		}
		base := file.With(views)
		ad := tokensOf(base)
		joined, deltas, err := Join(base, []Weighted{{ad, 1}})
		if err != nil {
			t.Fatal(err)
		}
		plan, _, err := NewPlan(joined, deltas, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := tensorsOf(t, plan)
		size, err := typ.RowBytes(256)
		if err != nil {
			t.Fatal(err)
		}
		was := base.View(arch.EmbeddingName).Rows.(*encodedRows).data
		embedding := got[arch.EmbeddingName]
		if len(embedding) != 753*int(size) {
			t.Fatalf("%v: %d bytes", typ, len(embedding))
		}
		codec, err := format.EncoderOf(typ)
		if err != nil {
			t.Fatal(err)
		}
		for id := range int64(753) {
			row := embedding[id*size : (id+1)*size]
			i := slices.Index([]int64{5, 751, 752}, id)
			if i < 0 {
				if !bytes.Equal(row, was[id*size:(id+1)*size]) {
					t.Fatalf("%v: row %d is another", typ, id)
				}
				continue
			}
			want := make([]byte, size)
			if err := codec.Encode(want, ad.Tokens.Rows[0].Rows.Row(i), 256, nil); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(row, want) {
				t.Errorf("%v: row %d is not the adapter's", typ, id)
			}
		}
		for _, v := range base.Views {
			if v.Name == arch.EmbeddingName {
				continue
			}
			raw := v.Rows.(format.RawReader)
			b := make([]byte, len(got[v.Name]))
			if err := raw.ReadRaw(b, 0); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(b, got[v.Name]) == (v.Name == "blk.1.attn_q.weight") {
				t.Errorf("%v: %s changed, or did not", typ, v.Name)
			}
		}
		tokens, _ := joined.Meta.Strs("tokenizer.ggml.tokens")
		types, _ := joined.Meta.Ints("tokenizer.ggml.token_type")
		vocab, _ := joined.Meta.Int("llama.vocab_size")
		if len(tokens) != 753 || tokens[751] != "<|think|>" || tokens[752] != "<|/think|>" || len(types) != 753 || types[751] != 4 || types[752] != 3 || types[5] != 1 || vocab != 753 {
			t.Errorf("%d tokens, types %v, vocab_size %d", len(tokens), types[len(types)-2:], vocab)
		}
		if n, _ := base.Meta.Strs("tokenizer.ggml.tokens"); len(n) != 751 {
			t.Error("the base's metadata changed")
		}
	}
}

// TestJoinRefuses: what rows of tokens do not go with.
func TestJoinRefuses(t *testing.T) {
	t.Parallel()
	base, err := arch.Open(testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	change := func(f func(a *adapter.Adapter)) []Weighted {
		a := tokensOf(base)
		f(a)
		return []Weighted{{a, 1}}
	}
	twice := append(change(func(*adapter.Adapter) {}), change(func(*adapter.Adapter) {})...)
	half := change(func(*adapter.Adapter) {})
	half[0].Factor = 0.5
	for _, c := range []struct {
		want string
		list []Weighted
	}{
		{"its factor is 1", half},
		{"two adapters have rows of tokens", twice},
		{"nothing says what that token is", change(func(a *adapter.Adapter) { a.Tokens.Added = a.Tokens.Added[:1] })},
		{`its token 5 is "x"`, change(func(a *adapter.Adapter) { a.Tokens.Added = append(a.Tokens.Added, arch.AddedToken{ID: 5, Token: "x"}) })},
		{"tied to the embedding", change(func(a *adapter.Adapter) { a.Tokens.Rows[0].Target = arch.HeadName })},
		{"there are gaps", change(func(a *adapter.Adapter) { a.Tokens.Added[1].ID, a.Tokens.Rows[0].IDs[2] = 1<<30, 1<<30 })},
		{"neither the embedding nor the head", change(func(a *adapter.Adapter) { a.Tokens.Rows[0].Target = "blk.0.attn_q.weight" })},
		{"have 3 numbers", change(func(a *adapter.Adapter) {
			a.Tokens.Rows[0].Rows = adapter.Matrix{Rows: 3, Cols: 3, Data: make([]float32, 9)}
		})},
		{"changes token_embd.weight as a whole", change(func(a *adapter.Adapter) {
			p := &adapter.Pair{Target: arch.EmbeddingName, Expert: -1}
			p.SetFactors(adapter.Matrix{Rows: 1, Cols: 256, Data: make([]float32, 256)}, adapter.Matrix{Rows: 751, Cols: 1, Data: make([]float32, 751)}, 1)
			a.Pairs = append(a.Pairs, p)
		})},
	} {
		if _, _, err := Join(base, c.list); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v where %q is wanted", err, c.want)
		}
	}
	if _, err := Combine(context.Background(), twice, CombineOptions{}); err == nil {
		t.Error("two adapters with rows of tokens are combined")
	}
	if _, err := NewDeltas(base, change(func(*adapter.Adapter) {})); err == nil {
		t.Error("rows of tokens are left out in silence")
	}
}

// TestCarryTokens: one adapter of several may have rows; a smaller rank keeps them; they are compared.
func TestCarryTokens(t *testing.T) {
	t.Parallel()
	base, err := arch.Open(testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"), arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	a, b := tokensOf(base), tokensOf(base)
	b.Tokens = nil
	for _, x := range []*adapter.Adapter{a, b} {
		if err := x.Resolve(base); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := Combine(context.Background(), []Weighted{{b, 0.5}, {a, 1}}, CombineOptions{})
	if err != nil || sum.Tokens != a.Tokens {
		t.Errorf("%v, %v", sum, err)
	}
	small, _, err := Resize(a, Cut{Rank: 1}, nil)
	if err != nil || small.Tokens != a.Tokens {
		t.Errorf("%v, %v", small, err)
	}
	other := tokensOf(base)
	other.Tokens.Rows[0].Rows.Data[0]++
	for _, c := range []struct {
		a, b *adapter.Adapter
		want string
	}{{a, tokensOf(base), "same"}, {a, other, "differs"}, {a, b, "only in A"}, {b, a, "only in B"}} {
		if err := c.b.Resolve(base); err != nil {
			t.Fatal(err)
		}
		list, err := DiffAdapters(c.a, c.b)
		if err != nil || list[len(list)-1].Status != c.want {
			t.Errorf("%+v, %v where %q is wanted", list[len(list)-1], err, c.want)
		}
	}
	p := Policy{ForbidTargets: []string{"token_embd*"}}
	if broken, err := p.Check(a, base); err != nil || len(broken) != 1 {
		t.Errorf("%v, %v", broken, err)
	}
	p = Policy{MaxNorm: 1}
	if broken, err := p.Check(other, base); err != nil || len(broken) != 1 || !strings.Contains(broken[0], "rows of tokens") {
		t.Errorf("rows far from the base's: %v, %v", broken, err)
	}
}
