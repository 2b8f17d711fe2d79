package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
)

// generalText are the keys of general.* that hold one string, in the order in which
// they are written, with the keys of a model card that give them.
var generalText = []struct {
	key  string
	card []string
}{
	{"name", []string{"name", "model_name"}},
	{"author", []string{"author", "model_author", "model_creator"}},
	{"version", []string{"version", "model_version"}},
	{"organization", []string{"organization", "model_organization"}},
	{"finetune", []string{"finetune"}},
	{"basename", []string{"basename", "model_basename", "model_type"}},
	{"description", []string{"description", "model_description"}},
	{"size_label", []string{"size_label", "model_size_label"}},
	{"license", []string{"license"}},
	{"license.name", []string{"license_name"}},
	{"license.link", []string{"license_link"}},
	{"source.url", []string{"url", "model_url"}},
	{"source.doi", []string{"doi", "model_doi"}},
	{"source.uuid", []string{"uuid", "model_uuid"}},
	{"source.repo_url", []string{"repo_url", "model_repo_url"}},
}

// sampling are the settings of a generation_config.json that GGUF has keys for.
var sampling = []SamplingKey{
	{"top_k", "top_k", true}, {"top_p", "top_p", false}, {"min_p", "min_p", false},
	{"xtc_probability", "xtc_probability", false}, {"xtc_threshold", "xtc_threshold", false},
	{"temperature", "temp", false}, {"penalty_last_n", "penalty_last_n", true},
	{"penalty_repeat", "penalty_repeat", false}, {"mirostat", "mirostat", true},
	{"mirostat_tau", "mirostat_tau", false}, {"mirostat_eta", "mirostat_eta", false},
}

// writeGeneral adds the general.* keys: what a model card, the configuration and
// the folder's name say about the model, completed by its size.
func writeGeneral(dir string, h *hparams, meta *gguf.Meta, views []*format.View, name string) error {
	total, shared, expert, experts := countParameters(views)
	card, err := readCard(filepath.Join(dir, "README.md"))
	if err != nil {
		return err
	}
	known := map[string]string{}
	for _, g := range generalText {
		for _, k := range g.card {
			if s, ok := cardText(card[k]); ok && known[g.key] == "" {
				known[g.key] = s
			}
		}
	}
	if id := h.str("_name_or_path"); id != "" && strings.Count(id, "/") <= 1 {
		parseModelID(id, total).fill(known)
	}
	if abs, err := filepath.Abs(dir); err == nil {
		parseModelID(filepath.Base(abs), total).fill(known)
	}
	if name != "" {
		known["name"] = name
	}
	if known["name"] == "" {
		known["name"] = filepath.Base(dir)
	}
	if known["size_label"] == "" && total > 0 {
		known["size_label"] = sizeLabel(total, shared, expert, experts)
	}

	meta.Set("general.type", "model")
	if err := writeSampling(filepath.Join(dir, "generation_config.json"), meta); err != nil {
		return err
	}
	for _, g := range generalText {
		if s := known[g.key]; s != "" {
			meta.Set("general."+g.key, s)
		}
	}
	writeSources(card, []string{"base_model", "base_models", "base_model_sources"}, "general.base_model.", meta, total)
	writeSources(card, []string{"datasets", "dataset", "dataset_sources"}, "general.dataset.", meta, total)
	if tags := append(cardList(card["tags"]), cardList(card["pipeline_tag"])...); len(tags) > 0 {
		meta.Set("general.tags", tags)
	}
	if langs := append(cardList(card["languages"]), cardList(card["language"])...); len(langs) > 0 {
		meta.Set("general.languages", langs)
	}
	return nil
}

func writeSampling(path string, meta *gguf.Meta) error {
	var gen map[string]any
	if _, err := readJSON(path, &gen); err != nil {
		return nil // the reference converter ignores broken ones too
	}
	for _, s := range sampling {
		f, ok := gen[s.HF].(float64)
		if !ok {
			continue
		}
		if s.Integer {
			meta.Set("general.sampling."+s.GGUF, int32(f))
		} else {
			meta.Set("general.sampling."+s.GGUF, float32(f))
		}
	}
	return nil
}

// readCard reads the front matter of a model card; without one it is empty.
func readCard(path string) (map[string]any, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	if lines[0] != "---" {
		return nil, nil
	}
	var front []string
	for _, l := range lines[1:] {
		if l == "---" {
			break
		}
		if l == "- no" { // Norwegian, not false
			l = `- "no"`
		}
		front = append(front, strings.ReplaceAll(l, "\t", "  "))
	}
	var card map[string]any
	if yaml.Unmarshal([]byte(strings.Join(front, "\n")), &card) != nil {
		return nil, nil // a card is for people; a broken one is no reason not to convert
	}
	return card, nil
}

func cardText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, v != ""
	case []any:
		return strings.Join(cardList(v), ","), len(v) > 0
	case int, float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

func cardList(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, x := range v {
			if s, ok := x.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

var hubURL = regexp.MustCompile(`^https?://huggingface\.co/([^/]+/[^/]+)$`)

// NameKeys writes the name of a model or an adapter, and what can be concluded from
// it: organization, version, size. params is the number of parameters, negative for
// an adapter.
func NameKeys(meta *gguf.Meta, id string, params int64) {
	known := map[string]string{"name": id}
	if p := parseModelID(id, params); title(p.full) != "" {
		delete(known, "name")
		p.fill(known)
	}
	for _, g := range generalText {
		if s := known[g.key]; s != "" {
			meta.Set("general."+g.key, s)
		}
	}
}

// writeSources adds the models or data sets that a card names as origins.
func writeSources(card map[string]any, keys []string, prefix string, meta *gguf.Meta, total int64) {
	var value any
	found := false
	for _, k := range keys {
		if v, ok := card[k]; ok && !found {
			value, found = v, true
		}
	}
	if !found {
		return
	}
	var list []any
	switch v := value.(type) {
	case string:
		list = []any{v}
	case []any:
		list = v
	}
	meta.Set(prefix+"count", uint32(len(list)))
	for i, x := range list {
		set := func(key, s string) {
			if s != "" {
				meta.Set(fmt.Sprintf("%s%d.%s", prefix, i, key), s)
			}
		}
		switch x := x.(type) {
		case string:
			id, repo := x, ""
			if strings.HasPrefix(x, "http://") || strings.HasPrefix(x, "https://") || strings.HasPrefix(x, "ssh://") {
				id, repo = "", x
				if m := hubURL.FindStringSubmatch(x); m != nil {
					id = m[1]
				}
			}
			if id != "" {
				p := parseModelID(id, total)
				set("name", title(p.full))
				set("version", p.version)
				set("organization", title(p.org))
				if repo == "" && p.org != "" {
					repo = "https://huggingface.co/" + p.org + "/" + p.full
				}
			}
			set("repo_url", repo)
		case map[string]any:
			for _, k := range []string{"name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"} {
				s, _ := cardText(x[k])
				set(k, s)
			}
		}
	}
}

// countParameters counts the elements of all tensors, of those that are no experts,
// of one expert of each stack, and how many experts there are.
func countParameters(views []*format.View) (total, shared, expert, experts int64) {
	var sum, stacks int64
	for _, v := range views {
		n, err := format.Elements(v.Shape)
		if err != nil {
			continue
		}
		if strings.Contains(v.Name, "_exps.") && len(v.Shape) >= 3 && v.Shape[len(v.Shape)-3] > 0 {
			e := v.Shape[len(v.Shape)-3]
			expert += n / e
			sum += e
			stacks++
		} else {
			shared += n
		}
		total += n
	}
	if stacks > 0 {
		experts = sum / stacks
	}
	return total, shared, expert, experts
}

func sizeLabel(total, shared, expert, experts int64) string {
	if experts > 0 {
		return strconv.FormatInt(experts, 10) + "x" + roundedCount(shared+expert)
	}
	return roundedCount(total)
}

// roundedCount writes a number of parameters with two digits at least: "3.3M".
func roundedCount(n int64) string {
	f, suffix := float64(n)*1e-3, "K"
	switch {
	case float64(n) > 1e12:
		f, suffix = float64(n)*1e-12, "T"
	case float64(n) > 1e9:
		f, suffix = float64(n)*1e-9, "B"
	case float64(n) > 1e6:
		f, suffix = float64(n)*1e-6, "M"
	}
	whole := strings.TrimLeft(strconv.FormatFloat(f, 'f', 0, 64), "0")
	return strconv.FormatFloat(f, 'f', max(2-len(whole), 0), 64) + suffix
}

// SamplingKey is a sampling setting that GGUF has a key for.
type SamplingKey struct {
	HF      string // in generation_config.json
	GGUF    string // after "general.sampling."
	Integer bool
}

// SamplingKeys lists them in the order in which they are written.
func SamplingKeys() []SamplingKey { return sampling }

// CardKey is a general.* key with the key of a model card that gives it.
type CardKey struct{ GGUF, Card string }

// CardKeys lists them in the order in which they are written.
func CardKeys() []CardKey {
	var keys []CardKey
	for _, g := range generalText {
		keys = append(keys, CardKey{g.key, g.card[0]})
	}
	return keys
}
