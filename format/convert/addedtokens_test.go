package convert

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/checkpoint"
)

// TestEdited changes one value of an object; all other bytes stay as they are.
func TestEdited(t *testing.T) {
	t.Parallel()
	set := func(json.RawMessage) (any, error) { return 7, nil }
	for in, want := range map[string]string{
		`{}`:                                    `{"k": 7}`,
		"{\n  \"a\": [1, 2],\n  \"b\": {}\n}\n": "{\n  \"a\": [1, 2],\n  \"b\": {}, \"k\": 7\n}\n",
		`{"a": {"k": 1}, "k" : "<x>" , "b":2}`:  `{"a": {"k": 1}, "k" : 7 , "b":2}`,
		`{"k":null}`:                            `{"k":7}`,
	} {
		got, err := edited([]byte(in), "k", set)
		if err != nil || string(got) != want {
			t.Errorf("%s became %s, %v", in, got, err)
		}
	}
	for _, in := range []string{``, `[]`, `{"a": 1`, `{"a"`, `7`} {
		if got, err := edited([]byte(in), "k", set); err == nil {
			t.Errorf("%q became %s", in, got)
		}
	}
}

// TestWithAdded: where a folder's files list added tokens, the new ones stand there, too; something lists them in any case.
func TestWithAdded(t *testing.T) {
	t.Parallel()
	added := []arch.AddedToken{{ID: 9, Token: "<a>"}, {ID: 10, Token: "<b>", Special: true}}
	doc := File{checkpoint.TokenizerName, []byte(`{"added_tokens": [{"id": 1, "content": "x"}], "model": {}}`)}
	plain := File{checkpoint.TokenizerConfigName, []byte(`{"bos_token": "x"}`)}
	listing := File{checkpoint.TokenizerConfigName, []byte(`{"added_tokens_decoder": {"1": {"content": "x"}}}`)}
	model := File{checkpoint.TokenizerModelName, []byte("model")}
	for _, c := range []struct {
		name  string
		files []File
		lists string // files that list the tokens
	}{
		{"a tokenizer.json", []File{doc, plain}, "tokenizer.json"},
		{"a list of decoders", []File{doc, listing}, "tokenizer.json tokenizer_config.json"},
		{"a model beside tokenizer.json", []File{doc, plain, model}, "tokenizer.json added_tokens.json"},
		{"a model and a list", []File{model, listing}, "tokenizer_config.json"},
		{"a model alone", []File{model}, "added_tokens.json"},
		{"added_tokens.json", []File{model, {checkpoint.AddedTokensName, []byte(`{"x": 1}`)}}, "added_tokens.json"},
	} {
		out, err := withAdded("dir", c.files, added)
		if err != nil {
			t.Fatal(err)
		}
		var lists []string
		for _, f := range out {
			if strings.Contains(string(f.Data), `"<a>"`) && strings.Contains(string(f.Data), `"<b>"`) {
				lists = append(lists, f.Name)
			}
			if f.Name != checkpoint.TokenizerModelName && !json.Valid(f.Data) {
				t.Errorf("%s: %s is no JSON: %s", c.name, f.Name, f.Data)
			}
			if f.Name != checkpoint.TokenizerModelName && strings.Contains(c.lists, f.Name) && f.Name != checkpoint.AddedTokensName && !strings.Contains(string(f.Data), `"x"`) {
				t.Errorf("%s: what stood in %s is lost: %s", c.name, f.Name, f.Data)
			}
		}
		if got := strings.Join(lists, " "); got != c.lists {
			t.Errorf("%s: %s list the tokens, not %s", c.name, got, c.lists)
		}
	}
	if _, err := withAdded("dir", []File{{checkpoint.TokenizerName, []byte("[")}}, added); err == nil || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Error(err)
	}
}
