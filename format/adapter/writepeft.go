package adapter

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
)

// WritePEFT writes a as a PEFT folder. The folder appears whole or not at all; with
// opt.Into each of its two files does. a must be resolved, unless it came from
// PEFT, or from MLX, which has the same names. Ranks and alphas that differ stand in rank_pattern and alpha_pattern, but for
// experts, which are made to have one rank and scale; rslora is folded into alpha.
func WritePEFT(dir string, a *Adapter, opt WriteOptions) error {
	if !a.resolved && (a.native || a.Format != "peft" && a.Format != "mlx") {
		return errUnresolved
	}
	if len(a.Pairs) == 0 && a.Tokens == nil {
		return errEmpty
	}
	for _, p := range a.Pairs {
		if !a.resolved && a.Format == "mlx" && strings.HasSuffix(p.Module, "embed_tokens") {
			return errUnresolved // an embedding stands transposed in PEFT
		}
	}
	pairs := slices.Clone(a.Pairs)
	slices.SortStableFunc(pairs, func(x, y *Pair) int { return strings.Compare(x.Module, y.Module) })
	pairs, vectors := wholeVectors(pairs)
	for _, p := range pairs {
		if err := onlyLoRA(p, "a PEFT folder"); err != nil {
			return err
		}
		if p.embedding && p.Magnitude != nil && !p.Columns {
			return format.Unsupported("PEFT's DoRA of an embedding is over columns, that of %s over rows: merge the adapter into its base instead", name(p))
		}
		if p.Module == "" {
			return format.Unsupported("%s has no name in Hugging Face's terms", p.Target)
		}
	}
	pairs = evened(pairs)
	plan, err := a.peftPlan(pairs, opt.Type)
	if err != nil {
		return err
	}
	c, err := a.peftConfig(pairs, opt)
	if err != nil {
		return err
	}
	if err := planWhole(plan, c, vectors); err != nil {
		return err
	}
	if err := a.putTokens(plan, c, opt.Type); err != nil {
		return err
	}
	extra := opt.extra(a)
	if err := a.Tokens.metadata(extra); err != nil {
		return err
	}
	if opt.Beside == nil {
		if opt.Beside, err = a.Tokens.copied(); err != nil {
			return err
		}
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFolder(dir, checkpoint.AdapterWeightsName, plan, extra, append(config, '\n'), opt)
}

func (a *Adapter) peftPlan(pairs []*Pair, typ format.Type) (*format.Plan, error) {
	plan := &format.Plan{}
	for _, p := range pairs {
		p = p.asNamed()
		b, magnitude := a.hf(p)
		keyA, keyB, ma, mb := p.peftTensors(b)
		if err := output(plan, keyA, typ, dims(ma), ma); err != nil {
			return nil, err
		}
		if err := output(plan, keyB, typ, dims(mb), mb); err != nil {
			return nil, err
		}
		if magnitude != nil {
			m := Matrix{Rows: 1, Cols: len(magnitude), Data: magnitude}
			// Always float32: a rounded norm would change the base beneath the adapter.
			if err := output(plan, peftPrefix+p.Module+".lora_magnitude_vector", format.F32, []int64{int64(m.Cols)}, m); err != nil {
				return nil, err
			}
		}
	}
	return plan, nil
}

// peftConfig makes adapter_config.json.
func (a *Adapter) peftConfig(pairs []*Pair, opt WriteOptions) (map[string]any, error) {
	var ranks []int
	var alphas []float64
	dora := 0
	for _, p := range pairs {
		if p.Magnitude != nil {
			dora++
		}
	}
	experts := ofExperts(pairs)
	of := pairs
	if len(experts) > 0 {
		of = experts
	}
	for _, p := range of {
		ranks = append(ranks, p.Rank)
		alphas = append(alphas, p.Alpha())
	}
	if dora != 0 && dora != len(pairs) {
		return nil, format.Unsupported("PEFT has DoRA for all modules or for none; here %d of %d have it", dora, len(pairs))
	}
	rank, alpha := common(ranks), common(alphas)
	rankPattern, alphaPattern := map[string]int{}, map[string]float64{}
	for _, p := range pairs {
		if p.Rank != rank {
			rankPattern[p.Module] = p.Rank
		}
		if p.Alpha() != alpha {
			alphaPattern[p.Module] = p.Alpha()
		}
	}
	base := any(nil)
	if opt.Base != "" {
		base = opt.Base
	} else if a.Base != "" {
		base = a.Base
	}
	c := map[string]any{
		"alpha_pattern": alphaPattern, "auto_mapping": nil, "base_model_name_or_path": base, "bias": "none",
		"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layers_pattern": nil,
		"layers_to_transform": nil, "lora_alpha": alpha, "lora_dropout": opt.Dropout, "modules_to_save": nil,
		"peft_type": "LORA", "r": rank, "rank_pattern": rankPattern, "revision": nil, "task_type": "CAUSAL_LM", "use_dora": dora > 0, "use_rslora": false,
	}
	if len(experts) > 0 {
		a.targetExperts(c, pairs, rankPattern, alphaPattern)
	} else {
		c["target_modules"] = a.targetModules(pairs)
	}
	putMergeAware(c, opt.extra(a))
	if len(a.Invocation) > 0 {
		c["alora_invocation_tokens"] = a.Invocation
	}
	return c, nil
}

// targetModules lists the last parts of the modules' names if these mean exactly
// the modules of the adapter, else whole names.
func (a *Adapter) targetModules(pairs []*Pair) []string {
	last := func(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }
	short, have := map[string]bool{}, map[string]bool{}
	var whole []string
	for _, p := range pairs {
		short[last(p.Module)] = true
		have[p.Module] = true
		whole = append(whole, p.Module)
	}
	if !a.resolved {
		return whole // what other modules the base has is not known
	}
	for _, module := range a.modules {
		if short[last(module)] && !have[module] {
			return whole
		}
	}
	var names []string
	for s := range short {
		names = append(names, s)
	}
	slices.Sort(names)
	return names
}
