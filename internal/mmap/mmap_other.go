//go:build !unix

package mmap

import "os"

func mapFile(*os.File, int) []byte { return nil }
func unmap([]byte) error           { return nil }
func advise([]byte, Advice)        {}
