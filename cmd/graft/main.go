// Command graft turns model files into other model files, and trains the small
// ones that change the big ones. See README.md and graft help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/graft-lora/graft/format"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run carries out one command line and returns the exit status that DESIGN.md
// gives its outcome.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &app{out: os.Stdout, err: os.Stderr}
	root := newRoot(app)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	app.endStatus()
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "graft: interrupted")
		return 130
	}
	fmt.Fprintf(os.Stderr, "graft: %v\n", err)
	return format.ExitStatus(err)
}
