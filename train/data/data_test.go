package data

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/internal/tokenizer"
	"github.com/klauspost/compress/zstd"
)

// sprig is the tokenizer of our own small model.
func sprig(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	return tokenizerOf(t, testutil.Shared(t, "models", "sprig", "sprig-q4_k_m.gguf"))
}

// templateFunc is a template written in Go, to have ones that behave in every way.
type templateFunc func(ms []any, tools any, generate bool) (string, [][2]int, error)

func (f templateFunc) Render(ms []any, tools any, generate bool) (string, [][2]int, error) {
	return f(ms, tools, generate)
}

func content(m any) string { s, _ := get(m, "content").(string); return s }
func role(m any) string    { s, _ := get(m, "role").(string); return s }

// chatML is the template of sprig: nothing marked, a newline after each end of turn.
func chatML(ms []any, _ any, generate bool) (string, [][2]int, error) {
	var b strings.Builder
	for _, m := range ms {
		b.WriteString("<|im_start|>" + role(m) + "\n" + content(m) + "<|im_end|>\n")
	}
	if generate {
		b.WriteString("<|im_start|>assistant\n")
	}
	return b.String(), nil, nil
}

// thinking drops what precedes </think> from all answers but the last, so that a
// conversation is rendered otherwise when it goes on.
func thinking(ms []any, _ any, generate bool) (string, [][2]int, error) {
	ms = slices.Clone(ms)
	for i, m := range ms {
		if _, after, ok := strings.Cut(content(m), "</think>"); ok && i < len(ms)-1 {
			ms[i] = with(m, "content", after)
		}
	}
	return chatML(ms, nil, generate)
}

// marking marks the answers as {% generation %} does, without their end of turn.
func marking(ms []any, _ any, generate bool) (string, [][2]int, error) {
	var b strings.Builder
	spans := [][2]int{}
	for _, m := range ms {
		b.WriteString("<|im_start|>" + role(m) + "\n")
		from := b.Len()
		b.WriteString(content(m))
		if role(m) == "assistant" {
			spans = append(spans, [2]int{from, b.Len()})
		}
		b.WriteString("<|im_end|>\n")
	}
	if generate {
		b.WriteString("<|im_start|>assistant\n")
	}
	return b.String(), spans, nil
}

// twoEnds ends each conversation with a second token that ends a generation.
func twoEnds(ms []any, tools any, generate bool) (string, [][2]int, error) {
	text, _, err := chatML(ms, tools, generate)
	if !generate {
		text += "<|endoftext|>"
	}
	return text, nil, err
}

// counting writes something that depends on all contents, so that no answer can be
// told from what is round it.
func counting(ms []any, tools any, generate bool) (string, [][2]int, error) {
	n := 0
	for _, m := range ms {
		n += len(content(m))
	}
	text, _, err := chatML(ms, tools, generate)
	return fmt.Sprint(n) + text, nil, err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// trainedText joins the pieces of trained tokens, runs of them separated by |.
func trainedText(tok *tokenizer.Tokenizer, s Sample) string {
	var b strings.Builder
	for i, id := range s.IDs {
		if s.Train[i] {
			if b.Len() > 0 && !s.Train[i-1] {
				b.WriteByte('|')
			}
			b.WriteString(tok.Piece(id))
		}
	}
	return b.String()
}

// TestRecordedTokens compares ids and labels with those that were fed to PEFT.
func TestRecordedTokens(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	tmpl, err := NewTemplate(tok.Spec().ChatTemplate, tok)
	if err != nil {
		t.Fatal(err)
	}
	e := &Encoder{Tokenizer: tok, Template: tmpl, Context: 512}
	set, err := e.Read(testutil.Shared(t, "models", "sprig", "identity-train.jsonl"), Fields{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(testutil.Shared(t, "oracle", "train", "sprig-q4km", "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want []struct{ IDs, Labels []int32 }
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(set.Samples) {
		t.Fatalf("%d samples, recorded %d", len(set.Samples), len(want))
	}
	for i, w := range want {
		if s := set.Samples[i]; !slices.Equal(s.IDs, w.IDs) || !slices.Equal(s.Labels(), w.Labels) {
			t.Errorf("sample %d:\n%v\n%v, recorded\n%v\n%v", i+1, s.IDs, s.Labels(), w.IDs, w.Labels)
		}
	}
}

func TestMasks(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	const two = `{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One."},{"role":"user","content":"More"},{"role":"assistant","content":"Two."}]}`
	const flags = `{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One.","train":false},{"role":"user","content":"More"},{"role":"assistant","content":"Two."}]}`
	const weights = `{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One.","weight":1},{"role":"user","content":"More"},{"role":"assistant","content":"Two.","weight":0}]}`
	const think = `{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"so</think>One."},{"role":"user","content":"More"},{"role":"assistant","content":"hm</think>Two."}]}`
	const pair = `{"prompt":"Hi","completion":"One."}`
	const lists = `{"prompt":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One."},{"role":"user","content":"More"}],"completion":[{"role":"assistant","content":"Two."}]}`
	const half = `{"prompt":"Hi","completion":[{"role":"assistant","content":"One."}]}`
	const shareGPT = `{"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"One."},{"from":"human","value":"More"},{"from":"gpt","value":"Two.","train":false}]}`
	const otherName = `{"conversations":[{"role":"user","content":"Hi"},{"role":"assistant","content":"One."}]}`
	const alpaca = `{"instruction":"Add","input":"1 and 2","output":"Three."}`
	for _, c := range []struct {
		name, line string
		tmpl       templateFunc
		opt        Options
		want       string
	}{
		{"all answers", two, chatML, Options{}, "One.<|im_end|>|Two.<|im_end|>"},
		{"last answer", two, chatML, Options{Train: "last"}, "Two.<|im_end|>"},
		{"train flag", flags, chatML, Options{}, "Two.<|im_end|>"},
		{"weight", weights, chatML, Options{}, "One.<|im_end|>"},
		{"rendered otherwise", think, thinking, Options{}, "One.<|im_end|>|hm</think>Two.<|im_end|>"},
		{"two ends", two, twoEnds, Options{}, "One.<|im_end|>|Two.<|im_end|>"},
		{"marked", two, marking, Options{}, "One.|Two."},
		{"marked, last", two, marking, Options{Train: "last"}, "Two."},
		{"pair as chat", pair, chatML, Options{}, "One.<|im_end|>"},
		{"pair of lists", lists, chatML, Options{}, "Two.<|im_end|>"},
		{"pair of a string and a list", half, chatML, Options{}, "One.<|im_end|>"},
		{"ShareGPT", shareGPT, chatML, Options{}, "One.<|im_end|>"},
		{"messages called conversations", otherName, chatML, Options{}, "One.<|im_end|>"},
		{"Alpaca", alpaca, chatML, Options{}, "Three.<|im_end|>"},
		{"all of Alpaca", alpaca, nil, Options{Train: "all", Between: ": "}, "dd\n\n1 and 2: Three.<|im_end|>"},
		{"plain pair", pair, nil, Options{}, "One.<|im_end|>"},
		{"plain pair with something between", pair, nil, Options{Between: " is "}, "One.<|im_end|>"},
		{"plain pair though a template is there", pair, chatML, Options{Chat: "never"}, "One.<|im_end|>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Encoder{Tokenizer: tok, Context: 100, Options: c.opt}
			if c.tmpl != nil {
				e.Template = c.tmpl
			}
			set, err := e.Read(write(t, "a.jsonl", c.line+"\n"), Fields{})
			if err != nil {
				t.Fatal(err)
			}
			if got := trainedText(tok, set.Samples[0]); got != c.want {
				t.Errorf("trained is %q, want %q", got, c.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	for _, c := range []struct {
		name, text string
		tmpl       templateFunc
		opt        Options
		want       string // part of the error
	}{
		{"not JSON", "{\"text\":\"a\"}\n\n{\"text\":\n", chatML, Options{}, "a.jsonl:3: the line is not a JSON object"},
		{"fields", `{"question":"a","answer":"b"}`, chatML, Options{}, "a.jsonl:1: the record has the fields answer, question"},
		{"no template", `{"messages":[{"role":"user","content":"a"}]}`, nil, Options{}, "a.jsonl:1: conversations need a chat template"},
		{"unknown speaker", `{"conversations":[{"from":"cat","value":"a"}]}`, chatML, Options{}, "a.jsonl:1: field conversations: turn 1 is from \"cat\""},
		{"no role", `{"messages":[{"content":"a"}]}`, chatML, Options{}, "a.jsonl:1: field messages: message 1 has no role"},
		{"empty", `{"messages":[]}`, chatML, Options{}, "a.jsonl:1: field messages is an empty conversation"},
		{"nothing to train", "{\"text\":\"a b\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", chatML, Options{}, "1 of 2 records have no token to train on (no answer, or it begins after the first 20 tokens): line 2"},
		{"answers not found", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`, counting, Options{}, "answer of message 2 cannot be located"},
		{"too long", `{"prompt":"a b c d e f g h i j k l m n o p q r s t u v w","completion":"b"}`, chatML, Options{Long: "error"}, "are longer than 20 tokens: line 1"},
		{"option", `{"text":"a"}`, chatML, Options{Train: "some"}, "train is \"some\""},
		{"nothing", "\n", chatML, Options{}, "nothing to train on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Encoder{Tokenizer: tok, Context: 20, Options: c.opt}
			if c.tmpl != nil {
				e.Template = c.tmpl
			}
			_, err := e.Read(write(t, "a.jsonl", c.text), Fields{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestTruncationIsCounted(t *testing.T) {
	t.Parallel()
	e := &Encoder{Tokenizer: sprig(t), Template: templateFunc(chatML), Context: 16}
	path := write(t, "a.jsonl", `{"prompt":"Hi","completion":"One."}
{"prompt":"Hi","completion":"One and two and three and four and five and six and seven."}
`)
	set, err := e.Read(path, Fields{})
	if err != nil {
		t.Fatal(err)
	}
	st := set.Stats
	if st.Truncated != 1 || !slices.Equal(st.TruncatedLines, []int{2}) || st.CutTokens < 1 || st.NoEnd != 0 || st.Longest != 16 || st.Samples != 2 {
		t.Errorf("%+v", st)
	}
	if n := st.Notes(); len(n) != 1 || !strings.Contains(n[0], "1 of 2 records are longer than the context") || !strings.Contains(n[0], "(line 2)") {
		t.Errorf("notes: %v", n)
	}
	e.Long = "drop"
	if set, err = e.Read(path, Fields{}); err != nil || set.Stats.DroppedLong != 1 || len(set.Samples) != 1 {
		t.Errorf("%+v, %v", set, err)
	}
}

// TestKindsOfFiles reads the same records from each kind of file.
func TestKindsOfFiles(t *testing.T) {
	t.Parallel()
	lines := "{\"question\":\"Who?\",\"answer\":\"Me.\"}\n{\"question\":\"Where?\",\"answer\":\"Here.\"}\n"
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write([]byte(lines))
	g.Close()
	z, _ := zstd.NewWriter(&zs)
	z.Write([]byte(lines))
	z.Close()
	e := &Encoder{Tokenizer: sprig(t), Template: templateFunc(chatML), Context: 64}
	var first string
	for i, c := range []struct{ name, text string }{
		{"a.jsonl", lines}, {"a.jsonl.gz", gz.String()}, {"b.jsonl.zst", zs.String()}, {"noname", lines},
		{"a.json", "[\n" + strings.Replace(strings.TrimSpace(lines), "\n", ",\n", 1) + "\n]"}, {"bom.jsonl", "\ufeff" + lines},
	} {
		set, err := e.Read(write(t, c.name, c.text), Fields{Prompt: "question", Completion: "answer"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if i == 0 {
			first = Digest(set.Samples)
		}
		if d := Digest(set.Samples); d != first {
			t.Errorf("%s: other samples", c.name)
		}
		if want := map[bool]int{true: 3, false: 2}[c.name == "a.json"]; set.Samples[1].Lines[0] != want {
			t.Errorf("%s: the second record is said to be in line %d", c.name, set.Samples[1].Lines[0])
		}
	}
	var corrupt *format.CorruptError
	if _, err := e.Read(write(t, "a.txt", "good \xff"), Fields{}); !errors.As(err, &corrupt) || corrupt.Offset != 5 {
		t.Errorf("text that is not UTF-8: %v", err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	e := &Encoder{Tokenizer: tok, Context: 16}
	text, err := ReadText(testutil.Shared(t, "models", "sprig", "stories.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	for _, s := range e.Text(text, false) {
		if len(s.IDs) > 16 || s.Trained() != len(s.IDs)-1 {
			t.Fatalf("a piece of %d tokens, %d trained", len(s.IDs), s.Trained())
		}
		ids = append(ids, s.IDs...)
	}
	want := tok.Encode(text, tokenizer.EncodeOptions{})
	if !slices.Equal(ids, want[:len(ids)]) || len(want)-len(ids) > 1 {
		t.Error("the pieces are not the text")
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	var samples []Sample
	for i, n := range []int{5, 9, 3, 7, 2, 10, 1} {
		s := Sample{IDs: make([]int32, n), Train: make([]bool, n), Lines: []int{i + 1}}
		for j := range s.IDs {
			s.IDs[j], s.Train[j] = int32(100*i+j), j > 0
		}
		samples = append(samples, s)
	}
	packed := Pack(samples, 10)
	if len(packed) != 4 { // 37 tokens do not fit into three
		t.Errorf("%d sequences", len(packed))
	}
	var lines []int
	for _, p := range packed {
		if len(p.IDs) > 10 {
			t.Errorf("a sequence of %d tokens", len(p.IDs))
		}
		for k, d := range p.Docs {
			end := len(p.IDs)
			if k+1 < len(p.Docs) {
				end = p.Docs[k+1]
			}
			s := samples[p.Lines[k]-1]
			if !slices.Equal(p.IDs[d:end], s.IDs) || !slices.Equal(p.Train[d:end], s.Train) {
				t.Errorf("document %d of %v is not its sample", k, p.Lines)
			}
		}
		lines = append(lines, p.Lines...)
	}
	slices.Sort(lines)
	if !slices.Equal(lines, []int{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("samples %v were packed", lines)
	}
}

func TestSplitAndOrder(t *testing.T) {
	t.Parallel()
	samples := make([]Sample, 20)
	for i := range samples {
		samples[i] = Sample{IDs: []int32{int32(i)}, Lines: []int{i}}
	}
	train, held := Split(samples, 0.1, 1)
	if len(train) != 18 || len(held) != 2 {
		t.Fatalf("%d and %d", len(train), len(held))
	}
	if _, again := Split(samples, 0.1, 1); again[0].Lines[0] != held[0].Lines[0] {
		t.Error("the same seed holds out other samples")
	}
	if train, held = Split(samples, 0.0001, 1); len(held) != 1 || len(train) != 19 {
		t.Errorf("%d and %d", len(train), len(held))
	}
	if train, held = Split(samples[:1], 0.5, 1); len(held) != 0 || len(train) != 1 {
		t.Errorf("%d and %d of one", len(train), len(held))
	}
	if !slices.Equal(Order(5, false, 1, 0), []int{0, 1, 2, 3, 4}) {
		t.Error("the file's order is changed")
	}
	a, b := Order(100, true, 1, 0), Order(100, true, 1, 1)
	if slices.Equal(a, b) || !slices.Equal(a, Order(100, true, 1, 0)) {
		t.Error("orders do not depend on the epoch alone")
	}
}

func TestShowMask(t *testing.T) {
	t.Parallel()
	tok := sprig(t)
	e := &Encoder{Tokenizer: tok, Template: templateFunc(chatML), Context: 64}
	set, err := e.Read(write(t, "a.jsonl", `{"prompt":"Hi","completion":"Yes."}`), Fields{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := ShowMask(&b, tok, set.Samples[0], false); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if _, list, _ := strings.Cut(got, "trained\n"); strings.ReplaceAll(strings.ReplaceAll(list, "][", ""), "\n", "") !=
		`<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yes.<|im_end|>]\n` {
		t.Errorf("%s", got)
	}
}
