//go:build !linux

package main

import "time"

// processorTime is not known here.
func processorTime() time.Duration { return 0 }

// dropCached leaves the system's cache as it is: how to drop a file there is not known.
func dropCached(string) error { return nil }
