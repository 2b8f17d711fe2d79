package train

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// datasetAliases are axolotl's names in an entry of its datasets, with graft's.
var datasetAliases = map[string]string{
	"field": "fields.text", "field_messages": "fields.messages", "field_instruction": "fields.prompt", "field_output": "fields.completion",
	"field_chosen": "fields.chosen", "field_rejected": "fields.rejected",
}

// datasetOnly are entries that say what graft sees for itself, with the values that it
// has a meaning for: kinds of records are told by their fields.
var datasetOnly = map[string]string{
	"type":    "chat_template alpaca sharegpt completion input_output chat_template.default chat_template.argilla chatml alpaca_chat.load_qa",
	"ds_type": "json jsonl text parquet", "split": "train", "train_on_eos": "turn last", "train_on_eot": "turn last",
	"chat_template": "tokenizer_default", "message_field_role": "role from", "message_field_content": "content value", "field_system": "system",
	"field_input": "input", "field_tools": "tools", "field_thinking": "reasoning_content thinking", "trust_remote_code": "true false",
	"message_field_training": "train", "preprocess_shards": "1", "conversation": "chatml",
}

// datasetLists are entries with more in them than a word, and the words that may be there:
// graft has its own names for who speaks, and the fields of messages by theirs.
var datasetLists = map[string]string{
	"roles_to_train": "assistant gpt", "roles": "user human assistant gpt model system tool", "message_property_mappings": "role from content value",
}

// datasetNulls are entries that nothing is said with when they are empty.
var datasetNulls = []string{"name", "shards", "shards_idx", "revision", "drop_system_message"}

// words are all scalars of a node, keys included.
func words(n *yaml.Node) (list []string) {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	for _, c := range n.Content {
		list = append(list, words(c)...)
	}
	return list
}

// fileOf is the path of an entry: what data_files says, where path is the kind of file.
func fileOf(entry *yaml.Node) {
	for i := 0; i+1 < len(entry.Content); i += 2 {
		files := entry.Content[i+1]
		if entry.Content[i].Value != "data_files" || empty(files) {
			continue
		}
		if files.Kind == yaml.SequenceNode && len(files.Content) == 1 {
			files = files.Content[0]
		}
		entry.Content[i].Value, entry.Content[i+1] = "path", files
		for j := 0; j+1 < len(entry.Content); j += 2 {
			if k := entry.Content[j+1].Value; j != i && entry.Content[j].Value == "path" && (k == "json" || k == "parquet" || k == "text") {
				entry.Content = append(entry.Content[:j], entry.Content[j+2:]...)
				return
			}
		}
	}
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
	fileOf(entry)
	m := &yaml.Node{Kind: yaml.MappingNode, Line: entry.Line}
	hasPath := false
	var put func(prefix string, key, value *yaml.Node) error
	put = func(prefix string, key, value *yaml.Node) error {
		name := prefix + key.Value
		if prefix == "" {
			if empty(value) && (slices.Contains(datasetNulls, name) || datasetOnly[name] != "" || datasetLists[name] != "" || datasetAliases[name] != "") {
				return nil
			}
			if allowed, ok := datasetLists[name]; ok {
				for _, w := range words(value) {
					if !slices.Contains(strings.Fields(allowed), w) {
						return fmt.Errorf("line %d: %s of a data set has %s: there can be %s", key.Line, name, w, strings.ReplaceAll(allowed, " ", ", "))
					}
				}
				return nil
			}
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
