package arch

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// modelID are the parts of a name like "org/Base-1.5-7B-Instruct-v2".
type modelID struct {
	full, org                           string
	basename, finetune, version, sizing string
}

// fill completes what is known about a model.
func (m modelID) fill(known map[string]string) {
	set := func(key, s string) {
		if known[key] == "" && s != "" {
			known[key] = s
		}
	}
	set("name", title(m.full))
	set("organization", title(m.org))
	set("basename", m.basename)
	set("finetune", m.finetune)
	set("version", m.version)
	set("size_label", m.sizing)
}

var versionWord = regexp.MustCompile(`^(v\d+(?:\.\d+)*|\d.*)$`)

// title writes an identifier as a title: dashes as spaces, words that are all lower
// case with capitals, except versions.
func title(id string) string {
	words := strings.Fields(strings.ReplaceAll(strings.TrimSpace(id), "-", " "))
	for i, w := range words {
		if strings.ToLower(w) == w && strings.ToUpper(w) != w && !versionWord.MatchString(w) {
			words[i] = capitals(w)
		}
	}
	return strings.Join(words, " ")
}

// capitals makes every letter a capital that does not follow a letter.
func capitals(w string) string {
	after := false
	return strings.Map(func(r rune) rune {
		letter := unicode.IsLetter(r)
		if letter && !after {
			r = unicode.ToTitle(r)
		}
		after = letter
		return r
	}, w)
}

var (
	versionPart  = regexp.MustCompile(`(?i)^(?:(v|iter)?\d+([.]\d+)*)$`)
	typePart     = regexp.MustCompile(`(?i)^(?:i?q\d(_\w)*|b?fp?(16|32))$`)
	sizePart     = regexp.MustCompile(`(?i)^(?:(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl))$`)
	finetunePart = regexp.MustCompile(`(?i)^(?:chat|instruct|vision|lora)$`)
)

// What a part of a name can be; a part can be several things.
const (
	isVersion = 1 << iota
	isType
	isSize
	isFinetune
	isBase
)

// parseModelID splits a name by the conventions that the reference converter
// knows. params is the size of the model, by which a number like 128K is told from
// a context length; negative for an adapter.
func parseModelID(id string, params int64) modelID {
	if strings.Contains(id, " ") {
		return modelID{full: id} // words for people
	}
	m := modelID{full: id}
	if org, name, ok := strings.Cut(id, "/"); ok {
		m.org, m.full = org, name
		if strings.HasPrefix(org, ".") {
			m.org = ""
		}
	}
	var parts []string
	for p := range strings.SplitSeq(m.full, "-") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	kinds := make([]int, len(parts))
	for i, p := range parts {
		switch {
		case versionPart.MatchString(p):
			kinds[i] = isVersion
		case typePart.MatchString(p):
			kinds[i], parts[i] = isType, strings.ToUpper(p)
		case i > 0 && sizePart.MatchString(p):
			parts[i], kinds[i] = sizeKind(p, params)
		case i > 0 && finetunePart.MatchString(p):
			kinds[i] = isFinetune
			if params < 0 && strings.EqualFold(p, "lora") {
				kinds[i] = isType
			}
		}
	}
	dropWordSizes(parts, kinds)
	markBase(parts, kinds)
	m.basename = joinKind(parts, func(i int) bool { return kinds[i]&isBase != 0 })
	m.finetune = joinKind(parts, func(i int) bool { return kinds[i]&isFinetune != 0 })
	m.version = joinKind(parts, func(i int) bool { return kinds[i]&isVersion != 0 && kinds[i]&isBase == 0 })
	var sizes []string
	seen := map[string]bool{}
	for i, p := range parts {
		if kinds[i]&isSize != 0 && !seen[p] {
			seen[p] = true
			sizes = append(sizes, p)
		}
	}
	m.sizing = strings.Join(sizes, "-")
	if m.sizing == "" && m.finetune == "" && m.version == "" {
		m.basename = ""
	}
	return m
}

func joinKind(parts []string, is func(int) bool) string {
	var list []string
	for i, p := range parts {
		if is(i) {
			list = append(list, p)
		}
	}
	return strings.Join(list, "-")
}

// sizeKind brings a size to its usual spelling and decides whether it is the
// model's or another number, a context length say.
func sizeKind(p string, params int64) (string, int) {
	p = strings.ReplaceAll(p, "_", ".")
	digit := func(i int) bool { return i >= 0 && p[i] >= '0' && p[i] <= '9' }
	n := len(p)
	if digit(n - 1) { // 7b1 is 7.1b
		p = p[:n-2] + "." + p[n-1:] + p[n-2:n-1]
		n = len(p)
	}
	if n > 1 && digit(n-2) && strings.ContainsRune("kmbt", rune(p[n-1])) {
		p = p[:n-1] + strings.ToUpper(p[n-1:])
	}
	if params != 0 {
		if f, err := strconv.ParseFloat(p[:n-1], 64); err == nil {
			label := float64(f * math.Pow(1000, float64(strings.Index(" KMBT", p[n-1:]))))
			other := params < 0 && label < float64(-params/8) ||
				params > 0 && math.Abs(label-float64(params)) > float64(7*params/8)
			if other {
				return p[:n-1] + strings.ToLower(p[n-1:]), isFinetune
			}
		}
	}
	return p, isSize
}

// dropWordSizes forgets sizes like "mini" when there is a number.
func dropWordSizes(parts []string, kinds []int) {
	number := false
	for i, p := range parts {
		number = number || kinds[i]&isSize != 0 && strings.ContainsAny(p, "0123456789")
	}
	for i, p := range parts {
		if number && kinds[i]&isSize != 0 && strings.IndexFunc(p, func(r rune) bool { return !unicode.IsLetter(r) }) < 0 {
			kinds[i] &^= isSize
		}
	}
}

// markBase finds the base name: the parts before the first that is something else;
// what is nothing else after it belongs to the fine-tune.
func markBase(parts []string, kinds []int) {
	start := true
	for i, p := range parts {
		first := []rune(p)[0]
		if start && (kinds[i] == 0 && unicode.IsLetter(first) || kinds[i]&isVersion != 0) {
			kinds[i] |= isBase
			continue
		}
		start = false
		if kinds[i] == 0 {
			kinds[i] = isFinetune
		}
	}
	for i := len(kinds) - 1; i >= 0; i-- {
		if kinds[i]&isBase == 0 || kinds[i] == isBase {
			break
		}
		kinds[i] &^= isBase
	}
}
