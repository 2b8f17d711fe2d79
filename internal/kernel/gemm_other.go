//go:build !(amd64 || arm64) || noasm

package kernel

func currentTiles() *tiles { return &genericTiles }
