package checkpoint

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
)

// Template is a chat template of a folder, in Jinja.
type Template struct {
	Name string // "default", "tool_use", …
	Text string
}

// ChatTemplate returns the default chat template; ok is false if there is none.
func (c *Checkpoint) ChatTemplate() (text string, ok bool) {
	if len(c.Templates) == 0 || c.Templates[0].Name != "default" {
		return "", false
	}
	return c.Templates[0].Text, true
}

// readTemplates finds the chat templates: in tokenizer_config.json if it has any,
// else chat_template.jinja with its additional templates, else chat_template.json,
// the order of the converter of llama.cpp.
func readTemplates(dir string, tokenizerConfig []byte) ([]Template, error) {
	if tokenizerConfig != nil {
		path := filepath.Join(dir, TokenizerConfigName)
		c, err := ParseConfig(path, tokenizerConfig)
		if err != nil {
			return nil, err
		}
		if c.Has("chat_template") {
			return parseTemplates(c)
		}
	}
	text, err := readSide(filepath.Join(dir, TemplateName))
	if err != nil {
		return nil, err
	}
	if text != nil {
		return readJinja(dir, string(text))
	}
	path := filepath.Join(dir, "chat_template.json")
	data, err := readSide(path)
	if err != nil || data == nil {
		return nil, err
	}
	c, err := ParseConfig(path, data)
	if err != nil || !c.Has("chat_template") {
		return nil, err
	}
	return parseTemplates(c)
}

// parseTemplates reads chat_template: one string, or a list of named ones.
func parseTemplates(c *Config) ([]Template, error) {
	var raw json.RawMessage
	if err := c.Get("chat_template", &raw); err != nil {
		return nil, err
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []Template{{"default", text}}, nil
	}
	var named []struct {
		Name     *string `json:"name"`
		Template *string `json:"template"`
	}
	err := json.Unmarshal(raw, &named)
	var list []Template
	for _, n := range named {
		if err == nil && (n.Name == nil || n.Template == nil) {
			err = errors.New("a template without name or text")
		}
		if err == nil {
			list = append(list, Template{*n.Name, *n.Template})
		}
	}
	if err != nil {
		return nil, &format.CorruptError{Path: c.path, Offset: -1, Field: "chat_template", Err: err}
	}
	slices.SortStableFunc(list, defaultFirst)
	return list, nil
}

func defaultFirst(a, b Template) int {
	switch {
	case a.Name == b.Name:
		return 0
	case a.Name == "default":
		return -1
	case b.Name == "default":
		return 1
	}
	return 0
}

func readJinja(dir, text string) ([]Template, error) {
	list := []Template{{"default", text}}
	more := filepath.Join(dir, "additional_chat_templates")
	entries, err := os.ReadDir(more)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok || e.IsDir() {
			continue
		}
		text, err := readSide(filepath.Join(more, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, Template{name, string(text)})
	}
	return list, nil
}
