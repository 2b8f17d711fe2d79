package jinja_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/graft-lora/graft/internal/jinja"
)

// TestJinja2 renders the templates of testdata/probes.json, which go through the
// language feature by feature, and compares with what jinja2 gave (testdata/record.py).
// Equality is exact; where jinja2 fails it is enough to fail.
func TestJinja2(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/probes.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec struct {
		Vars  json.RawMessage
		Cases []struct {
			Template string
			Output   *string
			Error    string
		}
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	vars, err := jinja.FromJSON(rec.Vars)
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Date(2025, 7, 6, 9, 4, 56, 0, time.UTC) }
	for _, c := range rec.Cases {
		var out jinja.Output
		tmpl, err := jinja.Parse(c.Template)
		if err == nil {
			out, err = tmpl.Render(vars.(*jinja.Dict), jinja.Options{Now: now})
		}
		switch {
		case c.Output == nil && err == nil:
			t.Errorf("%s\n got %q\nwant the error %s", c.Template, out.Text, c.Error)
		case c.Output != nil && err != nil:
			t.Errorf("%s\n got the error %v\nwant %q", c.Template, err, *c.Output)
		case c.Output != nil && out.Text != *c.Output:
			t.Errorf("%s\n got %q\nwant %q", c.Template, out.Text, *c.Output)
		}
	}
}
