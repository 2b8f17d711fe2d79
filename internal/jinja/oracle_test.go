package jinja_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/graft-lora/graft/internal/jinja"
	"github.com/graft-lora/graft/internal/testutil"
)

// clock is when the recorded renderings were made.
func clock() time.Time { return time.Date(2025, 7, 26, 12, 34, 56, 0, time.UTC) }

func read(t *testing.T, v any, elem ...string) {
	t.Helper()
	b, err := os.ReadFile(testutil.Shared(t, elem...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// value reads JSON that may be absent.
func value(t *testing.T, raw json.RawMessage) jinja.Value {
	t.Helper()
	if len(raw) == 0 {
		return nil
	}
	v, err := jinja.FromJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type conversation struct {
	Name     string
	Messages json.RawMessage
	Tools    json.RawMessage
	Kwargs   json.RawMessage
}

func conversations(t *testing.T) map[string]conversation {
	t.Helper()
	var list []conversation
	read(t, &list, "oracle", "templates", "conversations.json")
	m := map[string]conversation{}
	for _, c := range list {
		m[c.Name] = c
	}
	return m
}

func (c conversation) input(t *testing.T) jinja.ChatInput {
	t.Helper()
	in := jinja.ChatInput{Messages: value(t, c.Messages).(*jinja.List), Tools: value(t, c.Tools)}
	if kw, ok := value(t, c.Kwargs).(*jinja.Dict); ok {
		in.Extra = &jinja.Dict{}
		for _, k := range kw.Keys() {
			v, _ := kw.Get(k)
			switch k {
			case "continue_final_message":
				in.Continue = v == true
			case "documents":
				in.Documents = v
			default:
				in.Extra.Set(k, v)
			}
		}
	}
	return in
}

// TestTransformers renders every recorded conversation with every recorded template
// and compares the output, or that it fails and, where the template itself refuses,
// with what words. Equality is exact.
func TestTransformers(t *testing.T) {
	t.Parallel()
	convs := conversations(t)
	files, err := filepath.Glob(filepath.Join(testutil.Shared(t, "oracle", "templates", "outputs"), "*.json"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d recorded templates, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var rec struct {
				BOS             *string         `json:"bos_token"`
				EOS             *string         `json:"eos_token"`
				ToolsWhenAbsent json.RawMessage `json:"tools_when_absent"`
				Cases           []struct {
					Conversation string
					Generate     bool `json:"add_generation_prompt"`
					Tools        json.RawMessage
					Output       *string
					Error        string
					Raised       bool `json:"raised_by_template"`
				}
			}
			read(t, &rec, "oracle", "templates", "outputs", name+".json")
			src, err := os.ReadFile(testutil.Shared(t, "chat-templates", name+".jinja"))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := jinja.Parse(string(src))
			if err != nil {
				t.Fatal(err)
			}
			chat := &jinja.Chat{Template: tmpl, Tokens: map[string]string{}, Options: jinja.Options{Now: clock}}
			if rec.BOS != nil {
				chat.Tokens["bos_token"] = *rec.BOS
			}
			if rec.EOS != nil {
				chat.Tokens["eos_token"] = *rec.EOS
			}
			if len(rec.Cases) < 40 {
				t.Fatalf("only %d cases", len(rec.Cases))
			}
			for _, c := range rec.Cases {
				conv, ok := convs[c.Conversation]
				if !ok {
					t.Fatalf("no conversation %q", c.Conversation)
				}
				in := conv.input(t)
				in.Generate = c.Generate
				if conv.Tools == nil {
					in.Tools = value(t, rec.ToolsWhenAbsent)
				}
				if len(c.Tools) > 0 {
					in.Tools = value(t, c.Tools)
				}
				out, err := chat.Render(in)
				switch {
				case c.Output != nil && err != nil:
					t.Errorf("%s, generate %v: %v", c.Conversation, c.Generate, err)
				case c.Output != nil && out.Text != *c.Output:
					t.Errorf("%s, generate %v:\n got %q\nwant %q", c.Conversation, c.Generate, out.Text, *c.Output)
				case c.Output == nil && err == nil:
					t.Errorf("%s, generate %v: got %q, want the error %q", c.Conversation, c.Generate, out.Text, c.Error)
				case c.Output == nil:
					var e *jinja.Error
					if !errors.As(err, &e) || e.Raised != c.Raised || e.Raised && e.Msg != c.Error {
						t.Errorf("%s, generate %v: got the error %v, want %q (raised by the template: %v)", c.Conversation, c.Generate, err, c.Error, c.Raised)
					}
				}
			}
		})
	}
}

// TestGeneration compares the ranges of {% generation %} blocks with the recorded
// ones, which count code points.
func TestGeneration(t *testing.T) {
	t.Parallel()
	convs := conversations(t)
	var rec map[string]struct {
		Template string
		BOS      string `json:"bos_token"`
		EOS      string `json:"eos_token"`
		Cases    []struct {
			Conversation string
			Output       string
			Spans        [][2]int
			Texts        []string `json:"span_texts"`
		}
	}
	read(t, &rec, "oracle", "templates", "generation-masks.json")
	if len(rec) < 4 {
		t.Fatalf("only %d templates", len(rec))
	}
	for name, r := range rec {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmpl, err := jinja.Parse(r.Template)
			if err != nil {
				t.Fatal(err)
			}
			if !tmpl.HasGeneration() {
				t.Error("the template has no generation block")
			}
			chat := &jinja.Chat{Template: tmpl, Tokens: map[string]string{"bos_token": r.BOS, "eos_token": r.EOS}, Options: jinja.Options{Now: clock}}
			for _, c := range r.Cases {
				out, err := chat.Render(convs[c.Conversation].input(t))
				if err != nil || out.Text != c.Output {
					t.Errorf("%s: got %q, %v, want %q", c.Conversation, out.Text, err, c.Output)
					continue
				}
				var spans [][2]int
				var texts []string
				for _, g := range out.Generation {
					start := utf8.RuneCountInString(out.Text[:g[0]])
					text := out.Text[g[0]:g[1]]
					spans = append(spans, [2]int{start, start + utf8.RuneCountInString(text)})
					texts = append(texts, text)
				}
				if !slices.Equal(spans, c.Spans) || !slices.Equal(texts, c.Texts) {
					t.Errorf("%s: got %v %q, want %v %q", c.Conversation, spans, texts, c.Spans, c.Texts)
				}
			}
		})
	}
}
