package train

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/testutil"
	"github.com/graft-lora/graft/train/data"
	"github.com/graft-lora/graft/train/model"
)

// lessons writes n files of questions with answers, of different lengths.
func lessons(t *testing.T, n int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for f := range n {
		var b strings.Builder
		for i := range 6 + 4*f {
			fmt.Fprintf(&b, "{\"prompt\": \"File %d says %d\", \"completion\": \" and so it is %d\"}\n", f, i, i*(f+1))
		}
		path := filepath.Join(dir, fmt.Sprintf("part%d.jsonl", f))
		if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestSeveralFiles trains on files with weights: as many steps as they come to, the same
// bytes when interrupted, with a cache, with the cache's samples, and with a damaged one.
func TestSeveralFiles(t *testing.T) {
	t.Parallel()
	paths := lessons(t, 3)
	c := smallRun(t)
	c.NEFTune, c.Adapter.Dropout, c.Patience, c.KeepBest = 0, 0, 0, false
	c.SetData(Dataset{Path: paths[0], Weight: 2}, Dataset{Path: paths[1]}, Dataset{Path: paths[2], Weight: 0.5})
	c.Steps, c.Epochs, c.EvalEvery, c.Samples.Pack = 0, 2, 5, false
	c.Output = filepath.Join(t.TempDir(), "run")
	// 6, 10 and 14 samples, of which 1, 2 and 3 are held out: 2·5 + 8 + 5.5 an epoch.
	res := mustRun(t, c, Fresh)
	if res.Sequences != 2*(10+8+6) || res.Steps != 12 {
		t.Errorf("%d sequences in %d steps", res.Sequences, res.Steps)
	}
	want := outcomeOf(t, c.Output)

	interrupted := c
	interrupted.Output = filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Run(ctx, interrupted, Fresh, func(p Progress) {
		if p.Phase == "training" && p.Done == 7 {
			cancel()
		}
	})
	if err == nil {
		t.Fatal("it was not interrupted")
	}
	interrupted.DataCache = filepath.Join(t.TempDir(), "cache")
	mustRun(t, interrupted, Resume)
	outcomeOf(t, interrupted.Output).mustBe(t, want, "interrupted")

	var notes []string
	again := func(how string) {
		t.Helper()
		again := interrupted
		again.Output = filepath.Join(t.TempDir(), "run")
		notes = nil
		if _, err := Run(context.Background(), again, Fresh, func(p Progress) {
			if p.Note != "" {
				notes = append(notes, p.Note)
			}
		}); err != nil {
			t.Fatal(err)
		}
		outcomeOf(t, again.Output).mustBe(t, want, how)
	}
	files, err := filepath.Glob(filepath.Join(interrupted.DataCache, "*.samples"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	before, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	again("from the cache")
	if after, err := os.Stat(files[0]); err != nil || !os.SameFile(before, after) {
		t.Error("the cache was written again")
	}
	if err := os.Truncate(files[0], before.Size()-1); err != nil {
		t.Fatal(err)
	}
	again("with a damaged cache")
	if s := strings.Join(notes, "\n"); !strings.Contains(s, files[0]) || !strings.Contains(s, "it is made again") {
		t.Error("nothing was said of the damage: ", notes)
	}
	if err := os.WriteFile(paths[1], []byte(`{"prompt": "x", "completion": "y"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), interrupted, Resume, nil); err == nil || !strings.Contains(err.Error(), "the data is not the one") {
		t.Error(err)
	}
	interrupted.Datasets[1].Weight = 3
	if _, err := Run(context.Background(), interrupted, Resume, nil); err == nil || !strings.Contains(err.Error(), "datasets.2.weight") {
		t.Error(err)
	}
}

func TestDatasetNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Config{
		"datasets: [{path: a.jsonl}]":    {Data: "a.jsonl"},
		"data: [a.jsonl, b.parquet=0.5]": {Datasets: []Dataset{{Path: "a.jsonl"}, {Path: "b.parquet", Weight: 0.5}}},
		"datasets: [{path: a, type: alpaca, ds_type: json}, {path: b, weight: 2, field_messages: chat, fields: {prompt: q}}]": {Datasets: []Dataset{
			{Path: "a"}, {Path: "b", Weight: 2, Fields: data.Fields{Messages: "chat", Prompt: "q"}}}},
		"test_datasets: [{path: h}]\ndata: a": {Data: "a", HeldOut: "h"},
	} {
		got, err := configOf(t, text)
		if err != nil || got.Data != want.Data || got.HeldOut != want.HeldOut || fmt.Sprint(got.Datasets) != fmt.Sprint(want.Datasets) {
			t.Errorf("%q: %+v %+v, %v", text, got.Data, got.Datasets, err)
		}
		// What is written is read again as the same.
		c := DefaultConfig()
		c.Data, c.Datasets = want.Data, want.Datasets
		c.Output = t.TempDir()
		if _, err := begin(&c, Fresh, nil); err != nil {
			t.Fatal(err)
		}
		if back, err := ResumeConfig(c.Output); err != nil || back.Data != want.Data || fmt.Sprint(back.Datasets) != fmt.Sprint(want.Datasets) {
			t.Errorf("%q: came back as %+v, %v", text, back.Datasets, err)
		}
	}
	for text, want := range map[string]string{
		"datasets: [{path: a, weihgt: 2}]":      "line 1: a data set has no setting weihgt; did you mean weight?",
		"datasets: [{weight: 2}]":               "a data set has no path",
		"datasets: a":                           "datasets must be a list",
		"datasets: []":                          "datasets must be a list",
		"datasets: [{path: a, type: magic}]":    "type of a data set is magic",
		"datasets: [{path: a, split: test}]":    "split of a data set is test",
		"test_datasets: [{path: a}, {path: b}]": "one file",
		"datasets: [[a]]":                       "a data set is a file with its path",
	} {
		if _, err := configOf(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
	c := DefaultConfig()
	c.Base, c.Output = "m", "o"
	c.SetData(Dataset{Path: "a", Weight: -1})
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), `data set "a" has weight -1`) {
		t.Error(err)
	}
	if d := ParseDataset("a=b.jsonl"); d.Path != "a=b.jsonl" || d.Weight != 0 {
		t.Error(d)
	}
}

// TestStops takes the tokens that end a generation from a folder's generation_config.json.
func TestStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := testutil.Shared(t, "models", "sprig", "hf")
	list, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(src, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		`{}`:                         "",
		`{"eos_token_id": null}`:     "",
		`{"eos_token_id": 5}`:        "the answer ends without a token",
		`{"eos_token_id": [5, EOS]}`: "",
		`{"eos_token_id": "five"}`:   "eos_token_id",
		`{"eos_token_id": [5]`:       "generation_config.json",
	} {
		b, err := OpenBase(src, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		eos := fmt.Sprint(b.Tokenizer.EOS())
		b.Close()
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(strings.ReplaceAll(text, "EOS", eos)), 0o666); err != nil {
			t.Fatal(err)
		}
		c := smallRun(t)
		c.Base, c.Samples.Chat, c.Output = dir, "", "x"
		r, err := open(c, nil)
		if err == nil {
			r.base.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
