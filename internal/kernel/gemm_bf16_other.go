//go:build !amd64 || noasm

package kernel

const hasBF16 = false

// What follows is not reached, since begin asks bf16Tiles first.

func bf16Tiles() *tiles { panic("kernel: a product in bf16 on a processor that has none") }

func pairs32(_, _ *float32, _ int) { bf16Tiles() }

func zip32(_, _ *float32, _, _, _, _ int) { bf16Tiles() }

func peakBF16(_ int) { bf16Tiles() }
