package jinja_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/jinja"
)

// TestLimits: templates that would run, grow or nest without end are errors.
func TestLimits(t *testing.T) {
	t.Parallel()
	opt := jinja.Options{MaxSteps: 200_000, MaxOutput: 1 << 20}
	for _, src := range []string{
		`{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}`,
		`{% for a in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}`,
		`{{ "x" * 9999999999 }}`,
		`{{ [0] * 9999999999 }}`,
		`{{ 10 ** 99 }}`,
		`{{ 9223372036854775807 + 1 }}`,
		`{% set n = namespace(s="x") %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}`,
		`{% set n = namespace(s="x") %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}`,
		`{% set n = namespace(s="x") %}{% for i in range(99) %}{% set n.s = n.s.replace("x", "xx") %}{% endfor %}`,
		`{% set n = namespace(s="x") %}{% for i in range(99) %}{% set n.s = [n.s, n.s]|join(n.s) %}{% endfor %}`,
		`{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}`,
		`{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}`,
		`{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l|tojson }}`,
		`{% set n = namespace(a=[0], b=[0]) %}{% for i in range(99) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}`,
		`{% set n = namespace(l=(0,)) %}{% for i in range(99) %}{% set n.l = (n.l, n.l) %}{% endfor %}{{ {n.l: 1} }}`,
		`{% set n = namespace() %}{% set n.self = [n] %}{{ n }}`,
		`{% set n = namespace() %}{% set n.self = [n] %}{{ n.self|tojson }}`,
		`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`,
		`{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}`,
		`{% set l = [[]] %}{% for x in l recursive %}{{ loop(l) }}{% endfor %}`,
		`{{ "%999999999d" % 1 }}`,
		`{{ "{:999999999}".format(1) }}`,
		`{{ "x".center(999999999) }}`,
		`{{ range(0, 9223372036854775807, 1)|length }}`,
		strings.Repeat("(", 100000),
		"{{ " + strings.Repeat("(", 100000) + "1" + strings.Repeat(")", 100000) + " }}",
		"{{ " + strings.Repeat("[", 100000),
		"{{ " + strings.Repeat("not ", 100000) + "1 }}",
		"{{ " + strings.Repeat("-", 100000) + "1 }}",
		"{{ 1" + strings.Repeat("+1", 100000) + " }}",
		"{{ a" + strings.Repeat(".a", 100000) + " }}",
		"{{ a" + strings.Repeat("|e", 100000) + " }}",
		"{{ 1" + strings.Repeat(" if 1 else 1", 100000) + " }}",
		strings.Repeat("{% if 1 %}", 50000),
		strings.Repeat("x", 2<<20),
	} {
		name := src[:min(len(src), 60)]
		tmpl, err := jinja.Parse(src)
		var out jinja.Output
		if err == nil {
			out, err = tmpl.Render(nil, opt)
		}
		var syntax *jinja.SyntaxError
		var run *jinja.Error
		if !errors.As(err, &syntax) && !errors.As(err, &run) && !(strings.HasPrefix(src, "((") && out.Text == src) {
			t.Errorf("%s: %d bytes and %v", name, len(out.Text), err)
		}
	}
}

// FuzzTemplate: nothing that a file can hold makes parsing or rendering panic.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{ 1 }}", "{% for x in l if x recursive %}{{ loop(x) }}{% else %}{% endfor %}",
		"{% set a, b = d.items() %}", "{% macro m(a, b=1) %}{{ varargs }}{% endmacro %}{{ m(*l, **d) }}",
		"{% generation %}{{ l|map('upper')|list }}{% endgeneration %}", "{{ '%5.2f' % 3 }}{{ s[::-1] }}{# c #}{% raw %}{% endraw %}"} {
		f.Add(s)
	}
	vars, err := jinja.FromJSON([]byte(`{"l": [1, "a", [2]], "d": {"a": 1}, "s": "héllo"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src string) {
		tmpl, err := jinja.Parse(src)
		if err != nil {
			return
		}
		out, err := tmpl.Render(vars.(*jinja.Dict), jinja.Options{MaxSteps: 100_000, MaxOutput: 1 << 20})
		if err != nil {
			return
		}
		for _, g := range out.Generation {
			if g[0] < 0 || g[1] < g[0] {
				t.Errorf("span %v", g)
			}
		}
	})
}
