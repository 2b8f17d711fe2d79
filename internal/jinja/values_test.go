package jinja_test

import (
	"testing"

	"github.com/graft-lora/graft/internal/jinja"
)

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
