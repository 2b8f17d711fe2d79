package arch

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/graft-lora/graft/format"
)

// roles are the kinds of special tokens the converter looks for, with the middle of
// their GGUF keys ("" if GGUF has none).
var roles = []struct{ hf, gguf string }{
	{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"sep", "seperator"}, {"pad", "padding"}, {"cls", ""}, {"mask", "mask"},
}

// specials collects ids and flags in the order in which they are found.
type specials struct {
	limit int // size of the vocabulary for SentencePiece, -1: no limit
	ids   []specialID
	adds  []addFlag
}

type specialID struct {
	role string
	id   int64
}

type addFlag struct {
	role string
	on   bool
}

func (s *specials) id(role string, id int64) {
	if id < 0 || id > math.MaxInt32 || s.limit >= 0 && id >= int64(s.limit) {
		return
	}
	for _, x := range s.ids {
		if x.role == role {
			return
		}
	}
	s.ids = append(s.ids, specialID{role, id})
}

func (s *specials) add(role string, on bool) {
	for i := range s.adds {
		if s.adds[i].role == role {
			s.adds[i].on = on
			return
		}
	}
	s.adds = append(s.adds, addFlag{role, on})
}

// writeSpecial adds special ids, the flags that go with them, and chat templates.
// The ids come from tokenizer_config.json first, then from config.json.
func (v *folderVocab) writeSpecial() error {
	s := &specials{limit: -1}
	if model, _ := v.meta.Str(tok + "model"); model == "llama" {
		s.limit = v.size
	}
	names := make(map[string]string)
	for _, r := range roles {
		names[r.hf] = v.config.text(r.hf + "_token")
	}
	if names["bos"] == "" && names["cls"] != "" {
		names["bos"] = names["cls"]
	}
	if names["eos"] == "" && names["sep"] != "" {
		names["eos"] = names["sep"]
	}
	all := roles
	if v.json != nil && v.config != nil {
		if eot := v.template(s, names); eot != "" {
			all = append(all[:len(all):len(all)], struct{ hf, gguf string }{"eot", "eot"})
			names["eot"] = eot
		}
	}
	if v.config != nil {
		for _, r := range all {
			if on, ok := v.config.flag("add_" + r.hf + "_token"); ok {
				s.add(r.hf, on)
			}
			if names[r.hf] == "" || v.json == nil {
				continue
			}
			for _, a := range v.json.AddedTokens {
				if a.Content == names[r.hf] {
					s.id(r.hf, int64(a.ID))
					break
				}
			}
		}
	}
	for _, r := range all {
		if id, ok := v.h.int(r.hf + "_token_id"); ok {
			s.id(r.hf, id)
		}
	}
	key := map[string]string{}
	for _, r := range all {
		key[r.hf] = r.gguf
	}
	for _, x := range s.ids {
		if key[x.role] != "" {
			v.meta.Set(tok+key[x.role]+"_token_id", uint32(x.id))
		}
	}
	for _, x := range s.adds {
		if x.role == "bos" || x.role == "eos" || x.role == "sep" {
			v.meta.Set(tok+"add_"+x.role+"_token", x.on)
		}
	}
	if v.config == nil {
		return nil
	}
	return v.writeTemplates()
}

type templateItem struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

func (t templateItem) special() string {
	if t.SpecialToken == nil {
		return ""
	}
	return t.SpecialToken.ID
}

// template concludes from the post-processor which special tokens are added round a
// text. It may change the names of special tokens; the former name of the end
// token is returned if the template ends with another.
func (v *folderVocab) template(s *specials, names map[string]string) (eot string) {
	type processor struct {
		Type       string         `json:"type"`
		Single     []templateItem `json:"single"`
		Pair       []templateItem `json:"pair"`
		Processors []processor    `json:"processors"`
	}
	var post processor
	if json.Unmarshal(v.json.PostProcessor, &post) != nil {
		return ""
	}
	list := post.Processors
	if list == nil {
		list = []processor{post}
	}
	for _, p := range list {
		if p.Type == "RobertaProcessing" {
			s.add("bos", true)
			s.add("eos", true)
			s.add("sep", true)
		}
		if p.Type != "TemplateProcessing" {
			continue
		}
		first, last := "", ""
		if len(p.Single) > 1 {
			if first = p.Single[0].special(); first != "" {
				if first != names["bos"] && first != names["cls"] {
					if names["bos"] == "" {
						names["bos"] = first
					}
					if names["cls"] == "" {
						names["cls"] = first
					}
				}
				s.add("bos", first == names["bos"] || first == names["cls"])
			}
			if last = p.Single[len(p.Single)-1].special(); last != "" {
				if last != names["eos"] {
					eot = names["eos"]
					names["eos"] = last
				}
				s.add("eos", true)
			}
		}
		v.separator(s, names, p.Pair, first, last)
	}
	return eot
}

// separator looks at what a template puts between two texts.
func (v *folderVocab) separator(s *specials, names map[string]string, pair []templateItem, first, last string) {
	if len(pair) == 0 {
		return
	}
	if first != "" && pair[0].special() == first {
		pair = pair[1:]
	}
	if n := len(pair); n > 0 && last != "" && pair[n-1].special() == last {
		pair = pair[:n-1]
	}
	n := len(pair)
	if n < 3 || pair[0].Sequence == nil || pair[0].Sequence.ID != "A" || pair[n-1].Sequence == nil || pair[n-1].Sequence.ID != "B" {
		return
	}
	pair = pair[1 : n-1]
	is := func(t string) bool { return t != "" && (t == names["sep"] || t == names["eos"]) }
	add := is(pair[0].special()) && last == ""
	if len(pair) == 2 && is(pair[1].special()) {
		add = true
	}
	s.add("sep", add)
	if add && names["sep"] == "" {
		names["sep"] = names["eos"]
	}
}

// writeTemplates adds the chat templates of the folder.
func (v *folderVocab) writeTemplates() error {
	alt, err := v.templateFiles()
	if err != nil {
		return err
	}
	t, ok := v.config.v["chat_template"]
	if !ok {
		t = alt
	}
	switch t := t.(type) {
	case string:
		v.meta.Set("tokenizer.chat_template", t)
	case []any:
		names := map[string]bool{}
		text := ""
		hasDefault := false
		for _, x := range t {
			item, _ := x.(map[string]any)
			name, _ := item["name"].(string)
			body, isText := item["template"].(string)
			name = strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
					return r
				}
				return '_'
			}, name)
			switch {
			case name == "" || !isText:
			case name == "default":
				text, hasDefault = body, true
			default:
				names[name] = true
				v.meta.Set("tokenizer.chat_template."+name, body)
			}
		}
		if len(names) > 0 {
			var list []string
			for n := range names {
				list = append(list, n)
			}
			sort.Strings(list)
			v.meta.Set("tokenizer.chat_templates", list)
		}
		if hasDefault {
			v.meta.Set("tokenizer.chat_template", text)
		}
	}
	return nil
}

// templateFiles reads the templates that stand in files of their own.
func (v *folderVocab) templateFiles() (any, error) {
	b, err := os.ReadFile(v.path("chat_template.jinja"))
	if err == nil {
		more, _ := filepath.Glob(filepath.Join(v.dir, "additional_chat_templates", "*.jinja"))
		if len(more) == 0 {
			return string(b), nil
		}
		list := []any{map[string]any{"name": "default", "template": string(b)}}
		sort.Strings(more)
		for _, path := range more {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			name := strings.TrimSuffix(filepath.Base(path), ".jinja")
			list = append(list, map[string]any{"name": name, "template": string(b)})
		}
		return list, nil
	}
	if !os.IsNotExist(err) {
		return nil, err
	}
	var old map[string]any
	if _, err := readJSON(v.path("chat_template.json"), &old); err != nil {
		return nil, err
	}
	return old["chat_template"], nil
}

// Classes of pre-tokenizers that go by several names in GGUF. The names say which
// family a model is of; what they do to text is the same.
const (
	digitsRule = "digits" // single digits, then GPT-2's rule
	llama3Rule = "llama3"
	gpt4oRule  = "gpt-4o"
)

// preTokenizer names the rule by which tokenizer.json cuts text into words.
func (v *folderVocab) preTokenizer() (string, error) {
	type pre struct {
		Type          string `json:"type"`
		Pretokenizers []pre  `json:"pretokenizers"`
		Individual    bool   `json:"individual_digits"`
		UseRegex      *bool  `json:"use_regex"`
		Pattern       struct {
			Regex  string `json:"Regex"`
			String string `json:"String"`
		} `json:"pattern"`
	}
	var root pre
	if len(v.json.PreTokenizer) > 0 {
		if err := json.Unmarshal(v.json.PreTokenizer, &root); err != nil {
			return "", &format.CorruptError{Path: v.path("tokenizer.json"), Offset: -1, Field: "pre_tokenizer", Err: err}
		}
	}
	list := root.Pretokenizers
	if root.Type != "Sequence" {
		list = []pre{root}
	}
	kind := ""
	for _, p := range list {
		step := ""
		switch p.Type {
		case "Split":
			step = regexNames[p.Pattern.Regex]
			if step == "" {
				return "", format.Unsupported("%s: a pre-tokenizer that splits at %q", v.path("tokenizer.json"), p.Pattern.Regex+p.Pattern.String)
			}
		case "Digits":
			if !p.Individual {
				return "", format.Unsupported("%s: a pre-tokenizer that keeps runs of digits together", v.path("tokenizer.json"))
			}
			step = digitsRule
		case "ByteLevel":
			if p.UseRegex != nil && !*p.UseRegex {
				continue
			}
			step = "gpt-2"
			if kind == digitsRule {
				step = ""
			}
		default:
			return "", format.Unsupported("%s: a pre-tokenizer of type %q", v.path("tokenizer.json"), p.Type)
		}
		if step == "" {
			continue
		}
		if kind != "" {
			return "", format.Unsupported("%s: a pre-tokenizer that combines %s and %s", v.path("tokenizer.json"), kind, step)
		}
		kind = step
	}
	if name := v.h.table.pres[kind]; name != "" {
		return name, nil
	}
	switch kind {
	case "":
		return "", format.Unsupported("%s: a byte-level tokenizer without a pre-tokenizer", v.path("tokenizer.json"))
	case digitsRule:
		return "smollm", nil
	case llama3Rule:
		return "llama-bpe", nil
	}
	return kind, nil
}

// regexNames are the expressions that tokenizer.json files split at, by the name of
// the rule in GGUF.
var regexNames = map[string]string{
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                                                                                                                                                llama3Rule,
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                                                                                                                                                     "qwen2",
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                                                                                                                                         "qwen35",
	`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`: gpt4oRule,
	`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                                                "tekken",
}
