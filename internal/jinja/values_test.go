package jinja_test

import (
	"encoding/json"
	"testing"

	"github.com/graft-lora/graft/internal/jinja"
)

// TestFrom: values decoded by encoding/json print as those of FromJSON do, keys sorted.
func TestFrom(t *testing.T) {
	t.Parallel()
	var v any
	if err := json.Unmarshal([]byte(`{"b": [1.5, null, true], "a": {"x": "é"}}`), &v); err != nil {
		t.Fatal(err)
	}
	got, err := jinja.From(map[string]any{"doc": v, "n": json.Number("12345678901234567890"), "i": int64(3)})
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := jinja.Parse("{{ doc|tojson }} {{ n }} {{ i + 1 }}")
	if err != nil {
		t.Fatal(err)
	}
	out, err := tmpl.Render(got.(*jinja.Dict), jinja.Options{})
	if want := `{"a": {"x": "é"}, "b": [1.5, null, true]} 12345678901234567890 4`; err != nil || out.Text != want {
		t.Errorf("got %q, %v, want %q", out.Text, err, want)
	}
	if _, err := jinja.From(make(chan int)); err == nil {
		t.Error("a channel became a value")
	}
}

// TestVariablesStay: rendering changes nothing that it is given.
func TestVariablesStay(t *testing.T) {
	t.Parallel()
	v, err := jinja.FromJSON([]byte(`{"l": [3, 1, 2], "d": {"a": 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	before := v.(*jinja.Dict).Len()
	tmpl, err := jinja.Parse(`{% set l = l|sort %}{% set x = 5 %}{% set m = l|reverse|list %}{{ l }}{{ d.copy() }}`)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := tmpl.Render(v.(*jinja.Dict), jinja.Options{})
		if err != nil || out.Text != "[1, 2, 3]{'a': 1}" {
			t.Errorf("got %q, %v", out.Text, err)
		}
	}
	l, _ := v.(*jinja.Dict).Get("l")
	if v.(*jinja.Dict).Len() != before || l.(*jinja.List).Items[0] != 3 {
		t.Errorf("the variables changed: %v", l)
	}
}
