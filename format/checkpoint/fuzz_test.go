package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzSniff: no content of a file panics; a kind or an error comes of it, one of them.
func FuzzSniff(f *testing.F) {
	f.Add([]byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add([]byte("\x01\x00\x00\x00\x03\x00\x00\x00blk"))
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if kind, err := Sniff(path); (kind == Unknown) != (err != nil) {
			t.Errorf("%v with error %v", kind, err)
		}
	})
}

// FuzzConfig: no folder's JSON panics.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"hidden_size":64,"rope_scaling":{"factor":8.0},"chat_template":[{"name":"default","template":"x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig("config.json", b)
		if err != nil {
			return
		}
		for _, key := range c.Keys() {
			if _, err := c.Int(key); err == nil {
				if _, err := c.Float(key); err != nil {
					t.Errorf("%s is a whole number but no number: %v", key, err)
				}
			}
			c.Str(key)
			c.Bool(key)
			c.Strs(key)
			c.Floats(key)
			if s, err := c.Sub(key); err == nil {
				s.Keys()
			}
		}
		if c.Has("chat_template") {
			parseTemplates(c)
		}
		(&Checkpoint{Config: c}).QuantMethod()
	})
}
