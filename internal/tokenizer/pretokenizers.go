package tokenizer

// preTokenizer is what the name of a pre-tokenizer stands for in a GGUF file.
type preTokenizer struct {
	split        splitter
	ignoreMerges bool // a word that is a token is that token, whatever the merges say
	addBOS       bool // BOS is added where the file does not say
	addSEP       bool
	noBOS        bool // there is no BOS unless the file names one
	keepSpaces   bool // detokenizing never cleans up spaces
	chars        bool // merges work on characters, not on the byte-level alphabet
	escape       bool // spaces are ▁
}

var (
	llama3Split = tiktoken{fold: asciiFold, digits: 3}.split
	qwen2Split  = tiktoken{fold: asciiFold, digits: 1}.split
	qwen35Split = tiktoken{fold: asciiFold, digits: 1, marks: true}.split
	tekkenSplit = tiktoken{digits: 1, slash: true, upper: notLower, lower: notUpper}.split
	gpt4oSplit  = tiktoken{fold: asciiFold, digits: 3, slash: true, upper: notLower, lower: notUpper}.split
	smollmSplit = chain(splitDigits(1), splitGPT2)
)

// preTokenizers are the names that llama.cpp knows (August 2026).
var preTokenizers = map[string]preTokenizer{}

func register(p preTokenizer, names ...string) {
	for _, n := range names {
		preTokenizers[n] = p
	}
}

func init() {
	register(preTokenizer{split: llama3Split, ignoreMerges: true, addBOS: true},
		"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
	register(preTokenizer{split: llama3Split}, "dbrx", "smaug-bpe")
	register(preTokenizer{split: llama3Split, noBOS: true}, "glm4", "chatglm-bpe")
	register(preTokenizer{split: chain(splitDigits(3), tiktoken{fold: asciiFold}.split), ignoreMerges: true}, "minicpm5")
	register(preTokenizer{split: qwen2Split, keepSpaces: true},
		"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2")
	register(preTokenizer{split: qwen2Split}, "stablelm2", "megrez")
	register(preTokenizer{split: qwen35Split, keepSpaces: true}, "qwen35")
	register(preTokenizer{split: chain(splitNewlines, qwen2Split), keepSpaces: true}, "laguna")
	register(preTokenizer{split: tiktoken{fold: asciiFold, digits: 1, noTail: true}.split, keepSpaces: true}, "seed-coder")
	register(preTokenizer{split: tekkenSplit, ignoreMerges: true, addBOS: true, keepSpaces: true}, "tekken")
	register(preTokenizer{split: gpt4oSplit, keepSpaces: true}, "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2")
	register(preTokenizer{split: smollmSplit, keepSpaces: true}, "smollm", "command-r")
	register(preTokenizer{split: smollmSplit},
		"starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2")
	register(preTokenizer{split: splitGPT2},
		"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
		"modern-bert", "exaone4", "mpt", "olmo", "jais")
	register(preTokenizer{split: splitGPT2, keepSpaces: true}, "trillion", "granite-docling")
	register(preTokenizer{split: splitGPT2, addSEP: true}, "jina-v1-en", "jina-v2-code", "roberta-bpe")
	register(preTokenizer{split: splitNewlines, chars: true, escape: true, addBOS: true}, "gemma4", "granite-embed-multi-311m")
	register(preTokenizer{split: splitNewlines, chars: true, escape: true, keepSpaces: true}, "sarvam-moe")
}
