package data

import (
	"bytes"
	"encoding/json"
	"maps"
)

// decode parses JSON into what templates take: maps, slices, strings, numbers, booleans, nil.
func decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

// NewMessage is a turn without anything but text.
func NewMessage(role, content string) Message {
	return Message{Role: role, Train: role == "assistant", Value: map[string]any{"role": role, "content": content}}
}

// get is a field of a message's value, nil if there is none.
func get(v any, key string) any { return v.(map[string]any)[key] }

// with is a copy of a message's value with one field changed.
func with(v any, key string, value any) any {
	c := maps.Clone(v.(map[string]any))
	c[key] = value
	return c
}

// without is a message's value without some fields.
func without(v any, keys ...string) any {
	c := maps.Clone(v.(map[string]any))
	for _, k := range keys {
		delete(c, k)
	}
	return c
}
