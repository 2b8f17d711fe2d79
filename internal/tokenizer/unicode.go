package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is what the splitters know of a code point: its general category, as far
// as the patterns tell categories apart, and whether it is white space.
type class uint8

const (
	clsOther  class = iota // control, format, unassigned, separators that are no white space
	clsUpper               // Lu
	clsTitle               // Lt
	clsLower               // Ll
	clsModif               // Lm
	clsLetter              // Lo
	clsMark
	clsNumber
	clsPunct
	clsSymbol
	clsSpace class = 0x80 // flag: White_Space
	clsMask  class = 0x7f
	clsEnd   class = 0x7f // beyond the end of the text: no class matches it
)

func (c class) letter() bool { return c >= clsUpper && c <= clsLetter }
func (c class) mark() bool   { return c == clsMark }
func (c class) number() bool { return c == clsNumber }
func (c class) space() bool  { return c >= clsSpace }

// other: neither white space nor letter nor number, [^\s\p{L}\p{N}].
func (c class) other() bool {
	return c < clsSpace && c != clsEnd && c != clsNumber && !c.letter()
}

// classes maps every code point. Go's tables are Unicode 15.0; what 15.1 added,
// which the reference implementations have, is filled in.
var classes = sync.OnceValue(func() *[utf8.MaxRune + 1]class {
	t := new([utf8.MaxRune + 1]class)
	fill := func(rt *unicode.RangeTable, c class) {
		for _, r := range rt.R16 {
			for x := uint32(r.Lo); x <= uint32(r.Hi); x += uint32(r.Stride) {
				t[x] = c
			}
		}
		for _, r := range rt.R32 {
			for x := r.Lo; x <= r.Hi; x += r.Stride {
				t[x] = c
			}
		}
	}
	fill(unicode.Lu, clsUpper)
	fill(unicode.Lt, clsTitle)
	fill(unicode.Ll, clsLower)
	fill(unicode.Lm, clsModif)
	fill(unicode.Lo, clsLetter)
	fill(unicode.M, clsMark)
	fill(unicode.N, clsNumber)
	fill(unicode.P, clsPunct)
	fill(unicode.S, clsSymbol)
	fill(unicode.White_Space, clsSpace)
	for x := 0x2ebf0; x <= 0x2ee5d; x++ {
		t[x] = clsLetter
	}
	for x := 0x2ffc; x <= 0x2fff; x++ {
		t[x] = clsSymbol
	}
	t[0x31ef] = clsSymbol
	return t
})

// byteRunes is the alphabet of byte-level BPE: the printable bytes of Latin-1
// stand for themselves, the others, in order, for U+0100 onwards.
var byteRunes, runeBytes = func() (enc [256]rune, dec map[rune]byte) {
	dec = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range enc {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			enc[b] = rune(b)
		} else {
			enc[b] = next
			next++
		}
		dec[enc[b]] = byte(b)
	}
	return enc, dec
}()

// byteLevelDecode turns a token of the byte-level alphabet into the bytes that it
// stands for; ok is false if it holds any other character.
func byteLevelDecode(token string) (b string, ok bool) {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		c, known := runeBytes[r]
		if !known {
			return "", false
		}
		out = append(out, c)
	}
	return string(out), true
}

// leadLen is the length that the first byte of a UTF-8 sequence announces; 1 for
// a continuation byte.
func leadLen(b byte) int {
	switch {
	case b < 0xc0:
		return 1
	case b < 0xe0:
		return 2
	case b < 0xf0:
		return 3
	}
	return 4
}
