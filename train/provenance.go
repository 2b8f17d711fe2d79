package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strconv"

	"github.com/graft-lora/graft/format/adapter"
)

// provenance is what the adapter's files say of how they came to be: the base by each of
// its tensors, tokenizer, template, data, settings, seed and version. It is a function of
// the inputs and the settings, as the adapter is.
func (r *runner) provenance() (map[string]string, error) {
	identity, err := adapter.BaseIdentity(r.base.original, append(r.lora.rowNames, r.lora.names...), r.cfg.Threads)
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(r.cfg.essence())
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"graft.version":          Version(),
		adapter.MetaBaseFiles:    r.state.Inputs["base"],
		"graft.data.sha256":      r.state.Inputs["data"],
		"graft.tokenizer.sha256": tokenizerDigest(r.base.Tokenizer),
		"graft.train.settings":   string(settings),
		"graft.train.steps":      strconv.Itoa(r.state.Step),
		"graft.train.seed":       strconv.FormatUint(r.cfg.Seed, 10),
		"graft.train.samples":    r.samples,
	}
	if r.base.TemplateSource != "" {
		s := sha256.Sum256([]byte(r.base.TemplateSource))
		all["graft.chat_template.sha256"] = hex.EncodeToString(s[:])
	}
	maps.Copy(all, identity)
	return all, nil
}
