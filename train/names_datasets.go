package train

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// datasetAliases are axolotl's names in an entry of its datasets, with graft's.
var datasetAliases = map[string]string{
	"field": "fields.text", "field_messages": "fields.messages", "field_instruction": "fields.prompt", "field_output": "fields.completion",
	"field_chosen": "fields.chosen", "field_rejected": "fields.rejected", "data_files": "path",
}

// datasetOnly are entries that say what graft sees for itself, with the values that it
// has a meaning for: kinds of records are told by their fields.
var datasetOnly = map[string]string{
	"type":    "chat_template alpaca sharegpt completion input_output chat_template.default chat_template.argilla chatml alpaca_chat.load_qa",
	"ds_type": "json jsonl text parquet", "split": "train", "roles_to_train": "assistant", "train_on_eos": "turn last",
}

// ownDatasets rewrites a list of data sets into graft's names. A list of one without a
// weight is the run's data.
func ownDatasets(value *yaml.Node) (string, *yaml.Node, error) {
	if value.Kind != yaml.SequenceNode || len(value.Content) == 0 {
		return "", nil, errors.New("datasets must be a list of files with their paths")
	}
	known := map[string]reflect.Type{}
	fieldsOf("", reflect.TypeFor[Dataset](), known)
	out := &yaml.Node{Kind: yaml.SequenceNode, Line: value.Line}
	for _, entry := range value.Content {
		if entry.Kind == yaml.ScalarNode { // as with --data
			d := ParseDataset(entry.Value)
			m := &yaml.Node{Kind: yaml.MappingNode, Line: entry.Line}
			m.Content = append(m.Content, word("path"), word(d.Path))
			if d.Weight != 0 {
				m.Content = append(m.Content, word("weight"), &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatFloat(d.Weight, 'g', -1, 64)})
			}
			out.Content = append(out.Content, m)
			continue
		}
		m, err := ownDataset(entry, known)
		if err != nil {
			return "", nil, err
		}
		out.Content = append(out.Content, m)
	}
	if one := out.Content[0]; len(out.Content) == 1 && len(one.Content) == 2 {
		return "data", one.Content[1], nil
	}
	return "datasets", out, nil
}

func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func ownDataset(entry *yaml.Node, known map[string]reflect.Type) (*yaml.Node, error) {
	if entry.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a data set is a file with its path", entry.Line)
	}
	m := &yaml.Node{Kind: yaml.MappingNode, Line: entry.Line}
	hasPath := false
	var put func(prefix string, key, value *yaml.Node) error
	put = func(prefix string, key, value *yaml.Node) error {
		name := prefix + key.Value
		if prefix == "" {
			if allowed, ok := datasetOnly[name]; ok {
				if value.Kind != yaml.ScalarNode || !strings.Contains(" "+allowed+" ", " "+value.Value+" ") {
					return fmt.Errorf("line %d: %s of a data set is %s: what can be said is %s, and what a record is is told by its fields",
						key.Line, name, value.Value, strings.ReplaceAll(allowed, " ", ", "))
				}
				return nil
			}
			if own, ok := datasetAliases[name]; ok {
				name = own
			}
		}
		typ, ok := known[name]
		switch {
		case !ok:
			return fmt.Errorf("line %d: a data set has no setting %s; did you mean %s?", key.Line, name, nearest(name, known, datasetAliases))
		case typ.Kind() == reflect.Struct && value.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(value.Content); i += 2 {
				if err := put(name+".", value.Content[i], value.Content[i+1]); err != nil {
					return err
				}
			}
			return nil
		}
		at := m
		parts := strings.Split(name, ".")
		for _, p := range parts[:len(parts)-1] {
			at = child(at, p)
		}
		hasPath = hasPath || name == "path"
		at.Content = append(at.Content, word(parts[len(parts)-1]), value)
		return nil
	}
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if err := put("", entry.Content[i], entry.Content[i+1]); err != nil {
			return nil, err
		}
	}
	if !hasPath {
		return nil, fmt.Errorf("line %d: a data set has no path", entry.Line)
	}
	return m, nil
}
