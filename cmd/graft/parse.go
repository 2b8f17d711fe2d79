package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
)

// parseSize reads a number of bytes: "64MiB", "1.5GiB", "300MB", "4096".
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  float64
	}{
		{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
		{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
		{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1}, {"", 1},
	}
	low := strings.ToLower(strings.TrimSpace(s))
	for _, u := range units {
		num, ok := strings.CutSuffix(low, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || f <= 0 || math.IsNaN(f) || f*u.bytes > math.MaxInt64/2 {
			break
		}
		return int64(f * u.bytes), nil
	}
	return 0, format.Usagef("%q is not a size: write 64MiB, 1.5GiB, 300MB or a number of bytes", s)
}

// weighted is a path with a factor, PATH or PATH=FACTOR.
type weighted struct {
	path   string
	factor float32
}

// parseWeighted reads an adapter argument. A path that itself holds "=" can be
// given with a factor, since only what follows the last "=" is read as a number.
func parseWeighted(s string) weighted {
	if i := strings.LastIndexByte(s, '='); i > 0 {
		if f, err := strconv.ParseFloat(s[i+1:], 32); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return weighted{s[:i], float32(f)}
		}
	}
	return weighted{s, 1}
}

// shapeString prints a row-major shape: 576x1536.
func shapeString(shape []int64) string {
	if len(shape) == 0 {
		return "scalar"
	}
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = strconv.FormatInt(d, 10)
	}
	return strings.Join(parts, "x")
}

func percent(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100*part/whole)
}

// plural prints a number with its noun: 1 tensor, 2 tensors.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(int64(n)) + " " + noun + "s"
}
