//go:build !amd64 || noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

func peakLoop(cpu.Tier) int { return peakGeneric() }
