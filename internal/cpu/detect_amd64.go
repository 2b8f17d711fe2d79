//go:build amd64 && !noasm

package cpu

import "golang.org/x/sys/cpu"

func detect() []Tier {
	x := cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA || !x.HasF16C:
		return []Tier{Generic}
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL:
		return []Tier{Generic, AVX2, AVX512}
	}
	return []Tier{Generic, AVX2}
}
