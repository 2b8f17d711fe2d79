package data

import "github.com/graft-lora/graft/internal/jinja"

// decode parses JSON into what templates take; objects keep the order of their keys.
func decode(b []byte) (any, error) { return jinja.FromJSON(b) }

// NewMessage is a turn without anything but text.
func NewMessage(role, content string) Message {
	d := &jinja.Dict{}
	d.Set("role", role)
	d.Set("content", content)
	return Message{Role: role, Train: role == "assistant", Value: d}
}

// get is a field of a message's value, nil if there is none.
func get(v any, key string) any {
	x, _ := v.(*jinja.Dict).Get(key)
	return x
}

// with is a copy of a message's value with one field changed.
func with(v any, key string, value any) any {
	c := v.(*jinja.Dict).Clone()
	c.Set(key, value)
	return c
}

// without is a copy of a message's value without some fields.
func without(v any, keys ...string) any {
	old, d := v.(*jinja.Dict), &jinja.Dict{}
next:
	for _, k := range old.Keys() {
		for _, out := range keys {
			if k == out {
				continue next
			}
		}
		x, _ := old.Get(k)
		d.Set(k, x)
	}
	return d
}
