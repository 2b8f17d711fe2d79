package format

import (
	"errors"
	"fmt"
	"strings"
)

// CorruptError says that a file is wrong: it contradicts its own format.
// Commands that end with one exit with status 3.
type CorruptError struct {
	Path   string // file, as the user named it
	Offset int64  // byte offset in the file where the trouble stands, -1 if there is none
	Field  string // what was being read: "tensor blk.0.attn_q.weight: offset"
	Err    error  // the cause
}

func (e *CorruptError) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString("corrupt file")
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d (%#x)", e.Offset, e.Offset)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *CorruptError) Unwrap() error { return e.Err }

// UnsupportedError says that the input is (as far as one can tell) sound, but
// graft does not do this. Commands that end with one exit with status 4.
type UnsupportedError struct {
	Feature string // what is not supported, and what to do instead
}

func (e *UnsupportedError) Error() string { return "unsupported: " + e.Feature }

// Unsupported returns an [UnsupportedError] with a formatted feature.
func Unsupported(f string, args ...any) error {
	return &UnsupportedError{Feature: fmt.Sprintf(f, args...)}
}

// RowError says which row of a matrix cannot be encoded.
type RowError struct {
	Row int64 // of the rows given, and of the tensor once it has passed [AtRow]
	Err error // names the column, and why
}

func (e *RowError) Error() string { return fmt.Sprintf("row %d, %v", e.Row, e.Err) }

func (e *RowError) Unwrap() error { return e.Err }

// AtRow gives err as it is when the rows given began at row first: a [RowError] is
// moved, others are returned as they are.
func AtRow(err error, first int64) error {
	var e *RowError
	if errors.As(err, &e) {
		return &RowError{first + e.Row, e.Err}
	}
	return err
}

// CheckError says that everything ran, but what the command checks does not
// hold: two files differ, a merge lost its adapter. Exit status 5.
type CheckError struct {
	Reason string
}

func (e *CheckError) Error() string { return e.Reason }

// UsageError says that the command was called wrongly. Exit status 2.
type UsageError struct {
	Reason string
}

func (e *UsageError) Error() string { return e.Reason }

// Usagef returns a [UsageError] with a formatted reason.
func Usagef(f string, args ...any) error {
	return &UsageError{Reason: fmt.Sprintf(f, args...)}
}

// ExitStatus gives the exit status that DESIGN.md assigns to err.
func ExitStatus(err error) int {
	var (
		corrupt     *CorruptError
		unsupported *UnsupportedError
		check       *CheckError
		usage       *UsageError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return 2
	case errors.As(err, &corrupt):
		return 3
	case errors.As(err, &unsupported):
		return 4
	case errors.As(err, &check):
		return 5
	}
	return 1
}
