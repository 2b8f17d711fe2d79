//go:build !(amd64 || arm64) || noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

func peakLoop(_ cpu.Tier, pieces int) int { return peakGeneric(pieces) }
