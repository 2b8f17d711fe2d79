//go:build !amd64 || noasm

package kernel

func currentTiles() *tiles { return &genericTiles }
