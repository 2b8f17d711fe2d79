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
	"github.com/graft-lora/graft/format/adapter"
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

// adapterCache keeps adapters that were used, by their paths, and the bases that they act on.
type adapterCache struct {
	base   *train.Base // as its files have it
	opened map[string]*adapter.Adapter
	open   func(path string) (*adapter.Adapter, error) // through the gate
	// served are bases with adapters. One with new tokens is another model, with a tokenizer of its
	// own: there is one for each adapter that brings some, beside that of all others, "".
	served map[string]*servedBase
	again  func() (*train.Base, error) // opens the base once more
}

type servedBase struct {
	*train.Base
	used map[string]*model.Adapter
}

// get gives the adapters of a request and what they act on.
func (c *adapterCache) get(list []requestAdapter) (*servedBase, []model.Scaled, error) {
	brings := "" // the adapter with new tokens
	for _, w := range list {
		ad := c.opened[w.path]
		if ad == nil {
			var err error
			if ad, err = c.open(w.path); err != nil {
				return nil, nil, err
			}
			if err := ad.Resolve(c.base.Original()); err != nil {
				return nil, nil, err
			}
			c.opened[w.path] = ad
		}
		if ad.Tokens == nil || len(ad.Tokens.Added) == 0 {
			continue
		}
		if brings != "" && brings != w.path {
			return nil, nil, format.Unsupported("%s and %s both bring new tokens, of the same numbers: they cannot act together", brings, w.path)
		}
		brings = w.path
	}
	s := c.served[brings]
	if s == nil {
		base, err := c.again()
		if err != nil {
			return nil, nil, err
		}
		s = &servedBase{base, map[string]*model.Adapter{}}
		c.served[brings] = s
		if err := s.use(brings, c.opened[brings]); err != nil { // before the others: they are to fit what it makes of the base
			return nil, nil, err
		}
	}
	var adapters []model.Scaled
	for _, w := range list {
		if err := s.use(w.path, c.opened[w.path]); err != nil {
			return nil, nil, err
		}
		adapters = append(adapters, model.Scaled{Adapter: s.used[w.path], Weight: w.factor})
	}
	return s, adapters, nil
}

func (s *servedBase) use(path string, ad *adapter.Adapter) (err error) {
	if s.used[path] == nil {
		s.used[path], err = s.UseAdapter(ad)
	}
	return err
}

// Close closes the bases that the cache has opened.
func (c *adapterCache) Close() error {
	var errs []error
	for _, s := range c.served {
		if s.Base != c.base {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// serve answers requests from a file or, by the name "-", from standard input as they come,
// one JSON object a line, each with adapters of its own. The base is opened once and never
// touched, and once more for each adapter that brings new tokens.
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
	cache := &adapterCache{
		base:   base,
		opened: map[string]*adapter.Adapter{},
		open:   func(path string) (*adapter.Adapter, error) { return a.openFor(&o.gate, base.Original(), path) },
		served: map[string]*servedBase{"": {base, map[string]*model.Adapter{}}},
		again:  func() (*train.Base, error) { return a.openToRun(base.Path, o) },
	}
	defer cache.Close()
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
	base, adapters, err := cache.get(req.Adapters)
	if err != nil {
		return nil, err
	}
	for _, w := range req.Adapters {
		res.Adapters = append(res.Adapters, w.String())
	}
	res.LoadMS = milliseconds(time.Since(begun))
	prompt, err := o.tokens(base.Base, nil)
	if err != nil {
		return nil, err
	}
	if len(prompt) >= o.context {
		return nil, format.Usagef("the prompt has %d tokens and the context %d: raise --context", len(prompt), o.context)
	}
	begun = time.Now()
	s, err := base.Model.NewSession(o.context, adapters...)
	if err != nil {
		return nil, err
	}
	res.SwitchMS = milliseconds(time.Since(begun))
	g, err := train.Generate(ctx, s, base.Tokenizer, prompt, o.gen, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	res.Text, res.Tokens, res.Stopped = g.Text, len(g.IDs), g.Stopped
	return res, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
