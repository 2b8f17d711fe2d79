//go:build !(amd64 || arm64) || noasm

package quant

import "github.com/graft-lora/graft/format"

func vectorized(_ format.Type, decode func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	return decode
}
