package convert

// preTokenizer is what the name of a pre-tokenizer in GGUF stands for in a
// tokenizer.json.
type preTokenizer struct {
	regex        string // split at it, then bytes; "" lets the byte-level step use its own
	digits       bool   // single digits first
	ignoreMerges bool
	nfc          bool
}

func (p preTokenizer) json() object {
	if p.regex == "" && !p.digits {
		return object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	}
	var steps []object
	if p.digits {
		steps = append(steps, object{"type": "Digits", "individual_digits": true})
	}
	if p.regex != "" {
		steps = append(steps, object{"type": "Split", "pattern": object{"Regex": p.regex}, "behavior": "Isolated", "invert": false})
	}
	steps = append(steps, object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": p.regex == ""})
	return object{"type": "Sequence", "pretokenizers": steps}
}

const (
	llama3Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Regex  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen35Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	upperLower  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	upperOnly   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
	contraction = `(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
	restSlash   = `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenRegex = upperLower + `|` + upperOnly + `|\p{N}` + restSlash
	gpt4oRegex  = upperLower + contraction + `|` + upperOnly + contraction + `|\p{N}{1,3}` + restSlash
)

var preTokenizers = map[string]preTokenizer{}

func init() {
	for _, group := range []struct {
		pre   preTokenizer
		names []string
	}{
		{preTokenizer{}, []string{"gpt-2", "phi-2", "mpt", "olmo", "jais", "jina-es", "jina-de", "trillion", "granite-docling", "exaone4"}},
		{preTokenizer{digits: true}, []string{"smollm", "command-r", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"}},
		{preTokenizer{regex: llama3Regex, ignoreMerges: true}, []string{"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2"}},
		{preTokenizer{regex: llama3Regex}, []string{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}},
		{preTokenizer{regex: qwen2Regex, nfc: true}, []string{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"}},
		{preTokenizer{regex: qwen35Regex, nfc: true}, []string{"qwen35"}},
		{preTokenizer{regex: tekkenRegex, ignoreMerges: true}, []string{"tekken"}},
		{preTokenizer{regex: gpt4oRegex}, []string{"gpt-4o", "llama4"}},
	} {
		for _, n := range group.names {
			preTokenizers[n] = group.pre
		}
	}
}
