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

	// Expressions that several names share.
	anyPunct   = `[\p{P}\$\+<=>\^~\|`
	ideographs = regexSplit("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+")
	deepseek3  = regexSplit("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
	bloom      = regexSplit(" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+")
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
	register(preTokenizer{split: chain(regexSplit(anyPunct+`]+`), splitGPT2, splitDigits(1<<30), regexSplit(`[0-9][0-9][0-9]`))}, "default")
	register(preTokenizer{split: chain(regexSplit(anyPunct+"`]+"), splitGPT2, regexSplit(`[0-9][0-9][0-9]`))}, "falcon")
	register(preTokenizer{split: chain(regexSplit(`[\r\n]`),
		regexSplit("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"),
		regexSplit("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), regexSplit(`\s+(?!\n|[^\n])`), regexSplit("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), splitDigits(1<<30)), keepSpaces: true}, "deepseek-llm")
	register(preTokenizer{split: chain(regexSplit(`[\r\n]`), regexSplit(`\s?\p{L}+`), regexSplit(`\s?\p{P}+`), regexSplit("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), splitDigits(1)), keepSpaces: true}, "deepseek-coder")
	register(preTokenizer{split: chain(splitDigits(3), ideographs, deepseek3), keepSpaces: true}, "deepseek-v3", "hunyuan-dense", "joyai-llm")
	register(preTokenizer{split: chain(splitDigitGroups,
		regexSplit("[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"), deepseek3), keepSpaces: true}, "afmoe")
	register(preTokenizer{split: chain(splitDigitGroups, tiktoken{fold: asciiFold, digits: 3, slash: true, upper: anyCase, lower: anyCase}.split), keepSpaces: true}, "tiny_aya", "cohere2moe")
	register(preTokenizer{split: chain(regexSplit("[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
		regexSplit(`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`)), ignoreMerges: true, keepSpaces: true}, "youtu")
	register(preTokenizer{split: bloom, keepSpaces: true}, "poro-chat")
	register(preTokenizer{split: bloom}, "bloom", "gpt3-finnish")
	register(preTokenizer{split: chain(bloom, splitDigits(1)), keepSpaces: true}, "viking")
	register(preTokenizer{split: chain(regexSplit(`<sentinel:[0-9]+>`), regexSplit(`(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z`), regexSplit(`([\t\n]|    |  )`),
		splitDigits(1), regexSplit("[\\p{P}!-/:-@\\[-`{-~]"), splitGPT2), addBOS: true, keepSpaces: true}, "chameleon")
	register(preTokenizer{split: chain(splitDigits(1<<30), regexSplit(`(?=(\d{3})+(?!\d))`)), keepSpaces: true}, "superbpe")
	register(preTokenizer{split: regexSplit(`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`), keepSpaces: true},
		"bailingmoe", "bailingmoe2", "llada-moe")
	register(preTokenizer{split: regexSplit(`(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`)}, "exaone-moe")
	register(preTokenizer{split: regexSplit(`(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`)}, "jais-2")
	register(preTokenizer{split: tiktoken{fold: asciiFold, digits: 3, slash: true, upper: markOrNotLower, lower: markOrNotUpper}.split, ignoreMerges: true, keepSpaces: true}, "granite-embed-multi-97m")
	register(preTokenizer{split: splitKimi, keepSpaces: true}, "kimi-k2")
}
