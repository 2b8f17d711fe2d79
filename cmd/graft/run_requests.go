package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/graft-lora/graft/train/model"
)

// request is a line of --requests.
type request struct {
	Prompt   string           `json:"prompt"`
	System   string           `json:"system"`
	Adapters []requestAdapter `json:"adapters"` // they act together
	Max      *int             `json:"max"`      // tokens; --max if absent
}

// requestAdapter is "PATH", "PATH=FACTOR" or {"path": PATH, "scale": FACTOR}.
type requestAdapter struct{ weighted }

func (r *requestAdapter) UnmarshalJSON(b []byte) error {
	var name string
	if json.Unmarshal(b, &name) == nil {
		r.weighted = parseWeighted(name)
		return nil
	}
	o := struct {
		Path  string  `json:"path"`
		Scale float32 `json:"scale"`
	}{Scale: 1}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil || o.Path == "" {
		return fmt.Errorf(`adapter %s: write "PATH", "PATH=FACTOR" or {"path": "PATH", "scale": FACTOR}`, b)
	}
	r.weighted = weighted{o.Path, o.Scale}
	return nil
}

// String is PATH or PATH=FACTOR.
func (r requestAdapter) String() string {
	if r.factor == 1 {
		return r.path
	}
	return fmt.Sprintf("%s=%g", r.path, r.factor)
}

// response is a line of the answer.
type response struct {
	Line     int      `json:"line"`
	Adapters []string `json:"adapters"`
	Text     string   `json:"text"`
	Tokens   int      `json:"tokens"`
	Stopped  bool     `json:"stopped"`
	// LoadMS is the time that adapters not used before took to load and to be checked, SwitchMS
	// the time from there to a session that has them.
	LoadMS   float64 `json:"load_ms"`
	SwitchMS float64 `json:"switch_ms"`
}

// adapterCache keeps adapters that are loaded, by their paths.
type adapterCache struct {
	base   *train.Base
	loaded map[string]*model.Adapter
	load   func(path string) (*model.Adapter, error) // through the gate
}

func (c *adapterCache) get(path string) (*model.Adapter, error) {
	if a := c.loaded[path]; a != nil {
		return a, nil
	}
	a, err := c.load(path)
	if err != nil {
		return nil, err
	}
	if c.base.Source != c.base.Original() { // all other requests would be answered by another model
		return nil, format.Unsupported("%s brings new tokens, which requests do not share a base with: merge it, or run it with --adapter", path)
	}
	c.loaded[path] = a
	return a, nil
}

// serve answers requests from a file or, by the name "-", from standard input as they come,
// one JSON object a line, each with adapters of its own. The base is opened once and never
// touched.
func (a *app) serve(ctx context.Context, base *train.Base, o *runCmdOptions) error {
	if len(o.adapters) > 0 || o.prompt != "" || o.compare {
		return format.Usagef("--requests has prompts and adapters in its lines: it goes without -p, --file, --adapter and --compare")
	}
	in, name := io.Reader(os.Stdin), "standard input"
	if o.requests != "-" {
		f, err := os.Open(o.requests)
		if err != nil {
			return err
		}
		defer f.Close()
		in, name = f, o.requests
	}
	cache := &adapterCache{base, map[string]*model.Adapter{}, func(path string) (*model.Adapter, error) { return a.load(&o.gate, base, path) }}
	out := json.NewEncoder(a.out)
	out.SetEscapeHTML(false)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestRequest)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		r, err := a.request(ctx, cache, lines.Bytes(), *o)
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", name, n, err)
		}
		r.Line = n
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: line %d: %w", name, n+1, err)
	}
	return nil
}

// longestRequest is the most bytes of a line.
const longestRequest = 16 << 20

func (a *app) request(ctx context.Context, cache *adapterCache, line []byte, o runCmdOptions) (*response, error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var req request
	if err := dec.Decode(&req); err != nil {
		return nil, format.Usagef("not a request: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, format.Usagef("more than one object")
	}
	if strings.TrimSpace(req.Prompt) == "" {
		return nil, format.Usagef("it has no prompt")
	}
	o.prompt = req.Prompt
	if req.System != "" {
		o.system = req.System
	}
	if req.Max != nil {
		if *req.Max < 0 {
			return nil, format.Usagef("max is %d", *req.Max)
		}
		o.gen.Max = *req.Max
	}
	res := &response{Adapters: []string{}}
	begun := time.Now()
	var adapters []model.Scaled
	for _, w := range req.Adapters {
		ad, err := cache.get(w.path)
		if err != nil {
			return nil, err
		}
		res.Adapters = append(res.Adapters, w.String())
		adapters = append(adapters, model.Scaled{Adapter: ad, Weight: w.factor})
	}
	res.LoadMS = milliseconds(time.Since(begun))
	prompt, err := o.tokens(cache.base, nil)
	if err != nil {
		return nil, err
	}
	if len(prompt) >= o.context {
		return nil, format.Usagef("the prompt has %d tokens and the context %d: raise --context", len(prompt), o.context)
	}
	begun = time.Now()
	s, err := cache.base.Model.NewSession(o.context, adapters...)
	if err != nil {
		return nil, err
	}
	res.SwitchMS = milliseconds(time.Since(begun))
	g, err := train.Generate(ctx, s, cache.base.Tokenizer, prompt, o.gen, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	res.Text, res.Tokens, res.Stopped = g.Text, len(g.IDs), g.Stopped
	return res, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
