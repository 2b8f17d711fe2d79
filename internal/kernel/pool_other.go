//go:build !(amd64 || arm64) || noasm

package kernel

// pause is nothing where there is no instruction for it.
func pause() {}
