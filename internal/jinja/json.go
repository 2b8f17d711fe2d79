package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
)

// bigInt is an integer that does not fit into an int. It can be carried and printed.
type bigInt struct{ *big.Int }

// FromJSON reads a JSON document; objects keep the order of their keys.
func FromJSON(raw []byte) (Value, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := readJSON(d, 0)
	if err != nil {
		return nil, fmt.Errorf("jinja: read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("jinja: read JSON: something follows the value")
	}
	return v, nil
}

func readJSON(d *json.Decoder, depth int) (Value, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return jsonNumber(t)
	case json.Delim:
		if t == '[' {
			l := NewList()
			for d.More() {
				v, err := readJSON(d, depth+1)
				if err != nil {
					return nil, err
				}
				l.Items = append(l.Items, v)
			}
			_, err := d.Token()
			return l, err
		}
		o := &Dict{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			o.Set(k, v)
		}
		_, err := d.Token()
		return o, err
	}
	return t, nil
}

func jsonNumber(n json.Number) (Value, error) {
	if strings.ContainsAny(string(n), ".eE") {
		f, err := n.Float64()
		if err != nil && math.IsInf(f, 0) {
			err = nil // what Python reads too
		}
		return f, err
	}
	if i, err := n.Int64(); err == nil {
		return int(i), nil
	}
	b, ok := new(big.Int).SetString(string(n), 10)
	if !ok {
		return nil, fmt.Errorf("%q is no number", n)
	}
	return bigInt{b}, nil
}

// jsonStyle are the options of Python's json.dumps.
type jsonStyle struct {
	indent      string // per level
	lines       bool   // indent was given
	comma, col  string
	sorted      bool
	escapeASCII bool
}

// writeJSON is json.dumps(v) as transformers calls it: nothing is escaped that JSON
// does not require.
func writeJSON(b *strings.Builder, v Value, s *jsonStyle, level int) error {
	if level > maxDepth {
		return errors.New("circular reference or nested too deep")
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		if v {
			b.WriteString("true")
		} else {
			b.WriteString("false")
		}
	case int, bigInt:
		b.WriteString(repr(v))
	case float64:
		b.WriteString(jsonFloat(v))
	case string:
		jsonString(b, v, s.escapeASCII)
	case *List:
		if v.kind > isTuple {
			return fmt.Errorf("object of type %s is not JSON serializable", typeName(v))
		}
		return jsonSeq(b, s, level, '[', ']', len(v.Items), func(i int) error { return writeJSON(b, v.Items[i], s, level+1) })
	case *Dict:
		order := make([]int, v.Len())
		for i := range order {
			order[i] = i
		}
		keys := make([]string, v.Len())
		for i, k := range v.keys {
			switch k := k.(type) {
			case string:
				keys[i] = k
			case nil:
				keys[i] = "null"
			case bool:
				keys[i] = strings.ToLower(repr(k))
			case int:
				keys[i] = repr(k)
			case float64:
				keys[i] = jsonFloat(k)
			default:
				return fmt.Errorf("keys must be str, int, float, bool or None, not %s", typeName(k))
			}
		}
		if s.sorted {
			slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(keys[i], keys[j]) })
		}
		return jsonSeq(b, s, level, '{', '}', v.Len(), func(i int) error {
			jsonString(b, keys[order[i]], s.escapeASCII)
			b.WriteString(s.col)
			return writeJSON(b, v.values[order[i]], s, level+1)
		})
	default:
		return fmt.Errorf("object of type %s is not JSON serializable", typeName(v))
	}
	return nil
}

func jsonSeq(b *strings.Builder, s *jsonStyle, level int, open, end byte, n int, item func(int) error) error {
	b.WriteByte(open)
	for i := range n {
		if i > 0 {
			b.WriteString(s.comma)
		}
		if s.lines {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(s.indent, level+1))
		}
		if err := item(i); err != nil {
			return err
		}
		printable(b.Len())
	}
	if s.lines && n > 0 {
		b.WriteByte('\n')
		b.WriteString(strings.Repeat(s.indent, level))
	}
	b.WriteByte(end)
	return nil
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func jsonString(b *strings.Builder, s string, ascii bool) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ' || ascii && r >= 0x7f && r < 0x10000 && r != 0x7f:
			fmt.Fprintf(b, `\u%04x`, r)
		case ascii && r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}
