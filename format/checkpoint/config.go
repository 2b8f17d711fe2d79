package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/graft-lora/graft/format"
)

// Config is a JSON object of a folder (config.json, or an object inside it). Its
// getters say what is absent with an error that names the key and is [ErrAbsent];
// a null counts as absent.
type Config struct {
	path   string
	prefix string
	raw    []byte
	m      map[string]json.RawMessage
}

// ErrAbsent is the error of a getter whose key is not there.
var ErrAbsent = errors.New("is missing")

// ParseConfig reads a JSON object, called path in errors.
func ParseConfig(path string, data []byte) (*Config, error) {
	c := &Config{path: path, raw: data}
	if err := json.Unmarshal(data, &c.m); err != nil {
		at := int64(-1)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			at = syntax.Offset
		}
		return nil, &format.CorruptError{Path: path, Offset: at, Field: "JSON", Err: err}
	}
	if c.m == nil {
		return nil, &format.CorruptError{Path: path, Offset: 0, Field: "JSON", Err: errors.New("is null")}
	}
	return c, nil
}

// Raw is the JSON text.
func (c *Config) Raw() []byte { return c.raw }

// Keys are the names in c, ascending.
func (c *Config) Keys() []string {
	keys := make([]string, 0, len(c.m))
	for k := range c.m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Has says whether key is there and not null.
func (c *Config) Has(key string) bool {
	v, ok := c.m[key]
	return ok && string(v) != "null"
}

// Get decodes the value of key into dst as encoding/json does.
func (c *Config) Get(key string, dst any) error {
	if !c.Has(key) {
		return fmt.Errorf("%s: %s%s %w", c.path, c.prefix, key, ErrAbsent)
	}
	d := json.NewDecoder(bytes.NewReader(c.m[key]))
	d.UseNumber()
	err := d.Decode(dst)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return nil
		}
	}
	return &format.CorruptError{Path: c.path, Offset: -1, Field: c.prefix + key, Err: err}
}

// Str returns a string.
func (c *Config) Str(key string) (s string, err error) { err = c.Get(key, &s); return s, err }

// Bool returns a bool.
func (c *Config) Bool(key string) (b bool, err error) { err = c.Get(key, &b); return b, err }

// Float returns a number.
func (c *Config) Float(key string) (f float64, err error) { err = c.Get(key, &f); return f, err }

// Int returns a whole number; 2.0 is one.
func (c *Config) Int(key string) (int64, error) {
	var n json.Number
	if err := c.Get(key, &n); err != nil {
		return 0, err
	}
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64()
	if err == nil && f == float64(int64(f)) && f < 1<<53 && f > -1<<53 {
		return int64(f), nil
	}
	return 0, &format.CorruptError{Path: c.path, Offset: -1, Field: c.prefix + key, Err: fmt.Errorf("%s is no whole number", n)}
}

// Strs returns a list of strings.
func (c *Config) Strs(key string) (s []string, err error) { err = c.Get(key, &s); return s, err }

// Floats returns a list of numbers.
func (c *Config) Floats(key string) (f []float64, err error) { err = c.Get(key, &f); return f, err }

// Sub returns the object that stands under key.
func (c *Config) Sub(key string) (*Config, error) {
	s := &Config{path: c.path, prefix: c.prefix + key + "."}
	if err := c.Get(key, &s.m); err != nil {
		return nil, err
	}
	s.raw = c.m[key]
	return s, nil
}
