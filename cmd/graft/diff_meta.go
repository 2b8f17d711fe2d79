package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/graft-lora/graft/format/gguf"
)

// metaDifference says what two values of a metadata key differ by. Of long texts and lists, whose beginnings may be the same, it shows
// where they begin to differ.
func metaDifference(a, b gguf.Value) string {
	plain := shortValue(a) + " | " + shortValue(b)
	if a == nil || b == nil {
		return plain
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case x.Kind() == reflect.String && y.Kind() == reflect.String:
		s, t := []rune(x.String()), []rune(y.String())
		at := 0
		for at < min(len(s), len(t)) && s[at] == t[at] {
			at++
		}
		if at < 40 {
			return plain
		}
		return fmt.Sprintf("from character %s on: %s | %s", count(int64(at)), shortText(s[at-20:]), shortText(t[at-20:]))
	case x.Kind() == reflect.Slice && y.Kind() == reflect.Slice:
		first, n := -1, 0
		for i := range max(x.Len(), y.Len()) {
			if i < min(x.Len(), y.Len()) && reflect.DeepEqual(x.Index(i).Interface(), y.Index(i).Interface()) {
				continue
			}
			if n++; first < 0 {
				first = i
			}
		}
		if first < 0 {
			return plain // of other types
		}
		entry := func(v reflect.Value) string {
			if first >= v.Len() {
				return "absent"
			}
			return shortText([]rune(fmt.Sprint(v.Index(first).Interface())))
		}
		return fmt.Sprintf("%s | %s entries; %s, the first %s: %s | %s", count(int64(x.Len())), count(int64(y.Len())),
			plural(n, "difference"), count(int64(first)), entry(x), entry(y))
	}
	return plain
}

// shortText is a text on one line, and no more of it than fits.
func shortText(r []rune) string {
	s := strings.ReplaceAll(string(r[:min(len(r), 64)]), "\n", "\\n")
	if len(r) > 64 {
		s += "..."
	}
	return s
}
