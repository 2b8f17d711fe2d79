//go:build !noasm

package cpu

func detect() []Tier { return []Tier{Generic, NEON} }
