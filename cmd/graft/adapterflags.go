package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/train"
	"github.com/spf13/pflag"
)

// addAdapterFlags binds the flags of what kind of adapter is trained.
func addAdapterFlags(f *pflag.FlagSet, c *train.Config) {
	a := &c.Adapter
	f.BoolVar(&a.DoRA, "dora", a.DoRA, "train the norms of the changed rows too (DoRA); such an adapter has no GGUF form, merge it")
	f.StringVar(&a.Init, "init", a.Init, "how the adapter begins: lora, pissa (the matrices' own leading directions), eva (those of their inputs)")
	f.Float64Var(&a.EVARho, "eva-rho", a.EVARho, "of eva: give ranks to where they explain most, up to this times --rank each")
	f.StringVar(&a.Layers, "layers", a.Layers, "layers whose matrices are changed: 8-23,30 (all)")
	f.Var(&patterns[int]{&a.RankPattern, strconv.Atoi}, "rank-pattern", "PATTERN=R: another rank for some matrices; may be repeated")
	f.Var(&patterns[float64]{&a.AlphaPattern, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }}, "alpha-pattern", "PATTERN=A: another alpha for some matrices; may be repeated")
	f.Var(&tokens{&a.NewTokens}, "new-tokens", "tokens to add to the tokenizer, whose rows are trained: by comma, or @FILE with one a line")
	f.StringVar(&a.NewTokenInit, "new-token-init", a.NewTokenInit, "how their rows begin: mean (of all rows; the default), words (of the pieces they are spelled with), zero")
	f.Var(&tokens{&a.TrainTokens}, "train-tokens", "tokens of the base whose rows are trained too: texts or #ID by comma, or @FILE")
	f.StringVar(&a.Invocation, "invocation", a.Invocation, "text from whose last occurrence on the adapter acts (aLoRA)")
	f.Float64Var(&c.RouterLoss, "router-loss", c.RouterLoss, "of mixtures: weight of the loss that keeps experts evenly used (0.001 is usual)")
}

// tokens is a flag with a list of tokens.
type tokens struct{ to *[]string }

func (t *tokens) Set(s string) (err error) {
	*t.to, err = train.ParseTokens(s)
	return err
}

func (t *tokens) String() string {
	if t.to == nil {
		return ""
	}
	if slices.ContainsFunc(*t.to, func(s string) bool { return strings.ContainsAny(s, ",@") }) {
		return strings.Join(*t.to, "\n") + "\n"
	}
	return strings.Join(*t.to, ",")
}

func (t *tokens) Type() string { return "TOKENS" }

// patterns is a flag PATTERN=VALUE that adds to a map.
type patterns[T any] struct {
	to    *map[string]T
	parse func(string) (T, error)
}

func (p *patterns[T]) Set(s string) error {
	for _, one := range strings.Split(s, ",") {
		i := strings.LastIndexByte(one, '=')
		if i < 1 {
			return format.Usagef("%q is not PATTERN=VALUE", one)
		}
		v, err := p.parse(one[i+1:])
		if err != nil {
			return format.Usagef("%q is not PATTERN=VALUE: %v", one, err)
		}
		if *p.to == nil {
			*p.to = map[string]T{}
		}
		(*p.to)[one[:i]] = v
	}
	return nil
}

func (p *patterns[T]) String() string {
	if p.to == nil {
		return ""
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(*p.to)) {
		list = append(list, fmt.Sprintf("%s=%v", k, (*p.to)[k]))
	}
	return strings.Join(list, ",")
}

func (p *patterns[T]) Type() string { return "PATTERN=VALUE" }
