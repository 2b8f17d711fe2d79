//go:build !amd64 || noasm

package cpu

func detect() Tier { return Generic }
