package convert

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/gguf"
)

// modelCard keeps what the general.* keys say about a model: name, licence,
// languages, origins. They stand in the front matter of a README.md, where
// converters look for them. nil if there is nothing to say.
func modelCard(m *arch.Model) ([]byte, error) {
	var b bytes.Buffer
	line := func(key string, v any) error {
		doc, err := flow(v)
		if err == nil {
			fmt.Fprintf(&b, "%s: %s\n", key, doc)
		}
		return err
	}
	for _, k := range arch.CardKeys() {
		if s, ok := m.Meta.Str("general." + k.GGUF); ok {
			if err := line(k.Card, s); err != nil {
				return nil, err
			}
		}
	}
	for _, k := range [][2]string{{"tags", "tags"}, {"languages", "language"}} {
		if list, ok := m.Meta.Strs("general." + k[0]); ok {
			if err := line(k[1], list); err != nil {
				return nil, err
			}
		}
	}
	for _, k := range [][2]string{{"base_model", "base_model"}, {"dataset", "datasets"}} {
		if list := origins(m.Meta, "general."+k[0]+"."); len(list) > 0 {
			if err := line(k[1], list); err != nil {
				return nil, err
			}
		}
	}
	if b.Len() == 0 {
		return nil, nil
	}
	return []byte("---\n" + b.String() + "---\n"), nil
}

// flow writes v as JSON on one line, which YAML reads too.
func flow(v any) (string, error) {
	b, err := encodeJSON(v)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, " "), nil
}

// origins gathers the numbered entries under prefix.
func origins(meta *gguf.Meta, prefix string) []map[string]string {
	n, _ := meta.Int(prefix + "count")
	var list []map[string]string
	for i := range min(n, 1<<10) {
		entry := map[string]string{}
		from := fmt.Sprintf("%s%d.", prefix, i)
		for _, kv := range meta.All() {
			if key, ok := strings.CutPrefix(kv.Key, from); ok {
				if s, ok := kv.Value.(string); ok {
					entry[key] = s
				}
			}
		}
		list = append(list, entry)
	}
	return list
}
