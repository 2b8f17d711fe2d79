//go:build unix

package mmap

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, size int) []byte {
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	return data
}

func unmap(data []byte) error { return unix.Munmap(data) }

func advise(data []byte, a Advice) {
	how := unix.MADV_NORMAL
	switch a {
	case Sequential:
		how = unix.MADV_SEQUENTIAL
	case WillNeed:
		how = unix.MADV_WILLNEED
	case DontNeed:
		how = unix.MADV_DONTNEED
	}
	// Advice that is not taken costs speed, nothing else.
	_ = unix.Madvise(data, how)
}
