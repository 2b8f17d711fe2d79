package train

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/adapter"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/convert"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/graft-lora/graft/merge"
	"github.com/graft-lora/graft/train/model"
)

// TestNewTokens looks at where new tokens go, what their rows begin as, and that texts have them.
func TestNewTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base  []string
		first int
	}{
		{[]string{"models", "sprig", "sprig-q4_k_m.gguf"}, 751}, // tied, BPE
		{[]string{"models", "sprig", "hf"}, 751},
		{[]string{"oracle", "zoo", "llama", "f32.gguf"}, 0}, // a head of its own, SentencePiece
	} {
		for _, init := range arch.TokenInits() {
			base, err := OpenBase(testutil.Shared(t, c.base...), model.Options{Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer base.Close()
			plain, vocab, used := base.Tokenizer, base.Model.Vocab, base.Source.TokensInUse()
			if c.first != 0 && used != c.first {
				t.Errorf("%v: %d tokens in use", c.base, used)
			}
			text := "a cat <|think|><|/think|>"
			words := plain.Encode("<|think|>", tokenizer.EncodeOptions{})
			ac := AdapterConfig{NewTokens: []string{"<|think|>", "<|/think|>"}, NewTokenInit: init, TrainTokens: []string{"#3", plain.Token(5)}}
			if _, err := base.Prepare(&ac); err != nil {
				t.Fatal(err)
			}
			ids := base.Tokenizer.Encode(text, tokenizer.EncodeOptions{})
			if !slices.Contains(ids, int32(used)) || ids[len(ids)-1] != int32(used+1) || base.Tokenizer.Decode(ids, tokenizer.DecodeOptions{SkipSpecial: true}) != text {
				t.Errorf("%v: %q is %v, which is %q", c.base, text, ids, base.Tokenizer.Decode(ids, tokenizer.DecodeOptions{}))
			}
			if base.Model.Vocab != max(vocab, used+2) {
				t.Errorf("%v: the vocabulary was %d and is %d", c.base, vocab, base.Model.Vocab)
			}
			trained, err := base.trainedTokens(&ac)
			if err != nil || !slices.Equal(trained, []int32{3, 5, int32(used), int32(used + 1)}) {
				t.Errorf("%v: %v are trained, %v", c.base, trained, err)
			}
			rows, err := base.tokenRows(trained)
			if err != nil {
				t.Fatal(err)
			}
			if want := 2; base.Model.TiedHead && len(rows) != 1 || !base.Model.TiedHead && len(rows) != want {
				t.Errorf("%v: rows of %d matrices", c.base, len(rows))
			}
			for name, r := range rows {
				of := make([]int32, used)
				for i := range of {
					of[i] = int32(i)
				}
				switch init {
				case arch.InitWords:
					of = words
				case arch.InitZero:
					of = nil
				}
				want := make([]float64, r.Data.Cols)
				one := make([]float32, r.Data.Cols)
				for _, id := range of {
					if err := base.Original().View(name).Rows.ReadRows(one, int64(id)); err != nil {
						t.Fatal(err)
					}
					for i, x := range one {
						want[i] += float64(x) / float64(len(of))
					}
				}
				for i, x := range r.Data.Row(2) {
					if math.Abs(float64(x)-want[i]) > 1e-6 {
						t.Fatalf("%v, %s, %s: element %d begins as %v, not %v", c.base, init, name, i, x, want[i])
					}
				}
			}
		}
	}
}

// TestPaddedVocabulary: tokens that only fill the vocabulary up are what new ones take first.
func TestPaddedVocabulary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from := testutil.Shared(t, "models", "sprig", "hf")
	src, err := arch.Open(from, arch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// A folder with three rows more than its tokenizer has tokens.
	_, cols := src.View(arch.EmbeddingName).Rows.Dims()
	var rows arch.TokenRows
	var pad []arch.AddedToken
	for i := range 3 {
		rows.IDs = append(rows.IDs, int32(751+i))
		pad = append(pad, arch.AddedToken{ID: 751 + i, Token: "x" + string(rune('a'+i))})
	}
	rows.Data = make([]float32, 3*cols)
	wide, err := src.WithTokens(arch.Tokens{Added: pad, Rows: map[string]arch.TokenRows{arch.EmbeddingName: rows}})
	if err != nil {
		t.Fatal(err)
	}
	folder, err := convert.ToHF(wide, convert.HFOptions{})
	if err != nil {
		t.Fatal(err)
	}
	padded := filepath.Join(dir, "padded")
	if err := folder.Write(background, padded, false, format.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(padded, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for n, vocab := range map[int]int{1: 754, 3: 754, 5: 756} {
		base, err := OpenBase(padded, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		if base.Model.Vocab != 754 || base.Tokenizer.Size() != 754 {
			t.Fatalf("%d rows, %d tokens", base.Model.Vocab, base.Tokenizer.Size())
		}
		var list []string
		for i := range n {
			list = append(list, "<|new"+string(rune('a'+i))+"|>")
		}
		if _, err := base.Prepare(&AdapterConfig{NewTokens: list}); err != nil {
			t.Fatal(err)
		}
		if id, ok := base.Tokenizer.ID("<|newa|>"); !ok || id != 751 || base.Model.Vocab != vocab {
			t.Errorf("%d new tokens: the first is %d, of %d", n, id, base.Model.Vocab)
		}
	}
}

// TestTokensMerged trains rows beside a LoRA, on a base with a head of its own and on tied ones: merged into
// float32, as a GGUF file and as a folder, the model has the adapter's loss, its tokens and their rows.
func TestTokensMerged(t *testing.T) {
	t.Parallel()
	for _, path := range [][]string{{"oracle", "zoo", "llama", "hf"}, {"oracle", "zoo", "llama", "f32.gguf"}, {"models", "sprig", "hf"}} {
		c := kindRun(t, "", func(c *Config) {
			c.Base, c.HeldOutPart, c.Steps, c.Context = testutil.Shared(t, path...), 0, 2, 32
			c.Adapter.NewTokens, c.Adapter.TrainTokens, c.LR = []string{" It is", "<|x|>"}, []string{"#6"}, 1e-2
		})
		mustRun(t, c, Fresh)
		if _, err := os.Stat(filepath.Join(c.Output, GGUFFile)); err == nil {
			t.Error("a GGUF adapter was written, which cannot hold the rows")
		}
		src, err := arch.Open(c.Base, arch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		ad := readAdapter(t, c.Output)
		joined, deltas, err := merge.Join(src, []merge.Weighted{{Adapter: ad, Factor: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if match, err := ad.CheckBase(src, 1); err != nil || match != adapter.BaseSame {
			t.Errorf("%v: %v, %v", path, match, err)
		}
		sum, err := merge.Apply(joined, deltas)
		if err != nil {
			t.Fatal(err)
		}
		folder, err := convert.ToHF(sum, convert.HFOptions{Type: "f32"})
		if err != nil {
			t.Fatal(err)
		}
		merged := filepath.Join(t.TempDir(), "merged")
		if err := folder.Write(background, merged, false, format.RunOptions{}); err != nil {
			t.Fatal(err)
		}
		base, err := OpenBase(c.Base, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		used, err := base.LoadAdapter(c.Output)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := base.LoadAdapter(c.Output); err != nil || len(again.Rows) != len(used.Rows) {
			t.Errorf("%v: the second time %v", path, err)
		}
		whole, err := OpenBase(merged, model.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		ids := base.Tokenizer.Encode("So. It is <|x|>a cat", tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true})
		if got := whole.Tokenizer.Encode("So. It is <|x|>a cat", tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}); !slices.Equal(got, ids) {
			t.Errorf("%v: the merged model's tokens are %v, not %v", path, got, ids)
		}
		n := base.Original().TokensInUse()
		if !slices.Contains(ids, int32(n)) || !slices.Contains(ids, int32(n+1)) || base.Model.Vocab != whole.Model.Vocab {
			t.Errorf("%v: %v has not the new tokens; %d and %d tokens", path, ids, base.Model.Vocab, whole.Model.Vocab)
		}
		for name, r := range used.Rows {
			row := make([]float32, r.Data.Cols)
			for i, id := range r.IDs {
				if err := whole.Source.View(name).Rows.ReadRows(row, int64(id)); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(row, r.Data.Row(i)) {
					t.Errorf("%v: the row of token %d of %s is another", path, id, name)
				}
			}
		}
		b := &model.Batch{IDs: ids, Targets: model.ShiftLabels(ids, nil)}
		x, err := base.Model.Loss(b, model.Scaled{Adapter: used, Weight: 1})
		if err != nil {
			t.Fatal(err)
		}
		y, err := whole.Model.Loss(b)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(x.Sum-y.Sum) > 1e-4*x.Sum {
			t.Errorf("%v: the loss beside the base is %v, merged %v", path, x.Sum, y.Sum)
		}
	}
}

// TestTokensRefused: settings and tokens that make no sense, before anything is written.
func TestTokensRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want string
		set  func(c *Config)
	}{
		{"cannot be a token of its own", func(c *Config) { c.Adapter.NewTokens = []string{"e"} }},
		{"given twice", func(c *Config) { c.Adapter.NewTokens = []string{"<x>", "<x>"} }},
		{"is empty", func(c *Config) { c.Adapter.NewTokens = []string{""} }},
		{"is no token of", func(c *Config) { c.Adapter.TrainTokens = []string{"<|nowhere|>"} }},
		{"is no token of", func(c *Config) { c.Adapter.TrainTokens = []string{"#751"} }},
		{"there are mean, words, zero", func(c *Config) { c.Adapter.NewTokens, c.Adapter.NewTokenInit = []string{"<x>"}, "random" }},
		{"there is nothing to train", func(c *Config) { c.Adapter.Targets = []string{NoTargets} }},
		{"targets are none and others", func(c *Config) { c.Adapter.Targets = []string{NoTargets, "q_proj"} }},
		{"invocation", func(c *Config) { c.Adapter.NewTokens, c.Adapter.Invocation = []string{"<x>"}, "It" }},
		{"beside a LoRA on all of it", func(c *Config) {
			c.Adapter.NewTokens, c.Adapter.Targets = []string{"<x>"}, []string{"embed_tokens"}
		}},
	} {
		cfg := kindRun(t, "", c.set)
		cfg.Steps = 1
		if _, err := Run(background, cfg, Fresh, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v where %q is wanted", err, c.want)
		}
	}
	// A token that the base has is no new one, and its row is trained as asked.
	first := kindRun(t, "", func(c *Config) { c.Adapter.NewTokens, c.Steps = []string{"<|im_end|>", "<x>"}, 1 })
	mustRun(t, first, Fresh)
	if a := readAdapter(t, first.Output); !slices.Equal(a.Tokens.IDs(), []int32{2, 751}) || len(a.Tokens.Added) != 1 {
		t.Errorf("rows of %v, new are %v", a.Tokens.IDs(), a.Tokens.Added)
	}
	again := kindRun(t, "", func(c *Config) {
		c.Adapter.From, c.Adapter.NewTokens, c.Steps = first.Output, []string{"<x>", "<|im_end|>"}, 1
	})
	mustRun(t, again, Fresh)
	further := kindRun(t, "", func(c *Config) { c.Adapter.From, c.Adapter.NewTokens, c.Steps = first.Output, []string{"<y>"}, 1 })
	if _, err := Run(background, further, Fresh, nil); err == nil || !strings.Contains(err.Error(), "takes no other new_tokens") {
		t.Error(err)
	}
}

// TestTokensOnAnAdapter adds tokens to a run that begins with an adapter without any.
func TestTokensOnAnAdapter(t *testing.T) {
	t.Parallel()
	first := kindRun(t, "", func(c *Config) { c.Steps = 1 })
	mustRun(t, first, Fresh)
	further := kindRun(t, "", func(c *Config) { c.Adapter.From, c.Adapter.NewTokens, c.Steps = first.Output, []string{" It is"}, 1 })
	mustRun(t, further, Fresh)
	a := readAdapter(t, further.Output)
	if len(a.Pairs) != 28 || a.Tokens == nil || a.Tokens.Name(751) != " It is" {
		t.Errorf("%d pairs, tokens %+v", len(a.Pairs), a.Tokens)
	}
}
