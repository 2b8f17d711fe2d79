package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/graft-lora/graft/fixtures"
	"github.com/graft-lora/graft/internal/testutil"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"graft": main})
}

// TestScripts runs the command lines of testdata/script with the real command. Each
// script finds the fixtures in $WORK, Parquet files in $PARQUET, and the shared folder
// as $SHARED (see the condition [shared]). Besides testscript's own commands there are
//
//	status N graft args...   runs a command and checks its exit status
//	damage file offset hex   overwrites bytes of a file
//	truncate file size       cuts a file
//	sizeof file min max      checks a file's size
func TestScripts(t *testing.T) {
	t.Parallel()
	shared := os.Getenv("GRAFT_SHARED")
	if shared == "" {
		shared = filepath.Join(testutil.Root(), "..", "shared")
	}
	_, missing := os.Stat(shared)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("SHARED", shared)
			env.Setenv("PARQUET", filepath.Join(testutil.Root(), "train", "data", "testdata"))
			_, err := fixtures.Write(env.WorkDir, fixtures.Model, fixtures.Train, fixtures.Eval, fixtures.Text)
			return err
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "shared":
				return missing == nil, nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":   cmdStatus,
			"damage":   cmdDamage,
			"truncate": cmdTruncate,
			"sizeof":   cmdSizeOf,
		},
	})
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: damage file offset hex")
	}
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	var b []byte
	_, err = fmt.Sscanf(args[2], "%x", &b)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	ts.Check(err)
	ts.Check(f.Close())
}

func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate file size")
	}
	n, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

func cmdSizeOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: sizeof file min max")
	}
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	lo, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	hi, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	if st.Size() < lo || st.Size() > hi {
		ts.Fatalf("%s has %d bytes, want %d to %d", args[0], st.Size(), lo, hi)
	}
}

// TestHelpNamesEverything makes sure that every command has a long help with an
// example and its exit status.
func TestHelpNamesEverything(t *testing.T) {
	t.Parallel()
	root := newRoot(&app{out: &bytes.Buffer{}, err: &bytes.Buffer{}})
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" || cmd.HasSubCommands() {
			continue
		}
		if !strings.Contains(cmd.Long, "EXIT STATUS") || !strings.Contains(cmd.Long, "graft "+cmd.Name()) {
			t.Errorf("graft %s: the help lacks an example or the exit status", cmd.Name())
		}
	}
}
