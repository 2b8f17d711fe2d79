package quant

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/internal/rng"
	"github.com/graft-lora/graft/internal/testutil"
)

// plusRows are rows with a share of themselves, and a constant, added.
type plusRows struct {
	format.RowReader
	share, constant float32
}

func (r plusRows) ReadRows(dst []float32, row int64) error {
	err := r.RowReader.ReadRows(dst, row)
	for i, v := range dst {
		dst[i] = v + float32(r.share*v) + r.constant
	}
	return err
}

// TestBnBMove: a change far below a step is there on average, in pieces that begin anywhere; each
// code is one of the two beside the sum; without a change none moves.
func TestBnBMove(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"nf4", "nf4_dq", "nf4_bs32", "fp4", "fp4_bs256", "nf4_storage_bf16", "int8"} {
		f := openBnB(t, file+".safetensors")
		for _, w := range f.Tensors {
			if !strings.HasSuffix(w.Name, ".weight") {
				continue
			}
			p, err := OpenBnB(w, f.Tensor)
			if err != nil {
				t.Fatal(err)
			}
			if p == nil {
				continue
			}
			values := func(codes []byte) []float32 {
				switch r := p.Rows.(type) {
				case *nibbleRows:
					moved := *r
					moved.codes = codes
					return allRows(t, &moved)
				case *int8Rows:
					moved := *r
					moved.codes = codes
					return allRows(t, &moved)
				}
				return nil
			}
			view := &arch.HFView{View: format.View{Name: w.Name, Type: p.Type, Shape: p.Shape, Rows: p.Rows, From: p.From}}
			fill := func(rows format.RowReader) []byte {
				view.Rows = rows
				list, err := moveOutputs(&format.Output{Name: w.Name}, view, true, BnBMove{Seed: 5})
				if err != nil {
					t.Fatal(err)
				}
				if len(list) != len(p.From) || list[0].Size() != w.Size {
					t.Fatalf("%s: %s: %d tensors, the first of %d bytes", file, w.Name, len(list), list[0].Size())
				}
				for i, o := range list[1:] {
					if want, _ := tensorBytes(p.From[i+1]); o.Name != p.From[i+1].Name || !bytes.Equal(fillInPieces(t, o), want) {
						t.Errorf("%s: %s: %s is another", file, w.Name, o.Name)
					}
				}
				whole := make([]byte, w.Size)
				if err := list[0].Fill(whole, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(whole, fillInPieces(t, list[0])) {
					t.Errorf("%s: %s: other bytes in pieces", file, w.Name)
				}
				return whole
			}
			stored, _ := tensorBytes(w)
			if !bytes.Equal(fill(p.Rows), stored) {
				t.Errorf("%s: %s: codes move without a change", file, w.Name)
			}
			was, now := values(stored), values(fill(plusRows{p.Rows, -0.02, 0}))
			var rd, dd float64
			for i, v := range was {
				rd, dd = rd-0.02*float64(v)*(float64(now[i])-float64(v)), dd+0.0004*float64(v)*float64(v)
			}
			if gain := rd / dd; len(was) > 5000 && math.Abs(gain-1) > 0.15 {
				t.Errorf("%s: %s: gain %.3f of %d values", file, w.Name, gain, len(was))
			}
			view.Rows = plusRows{p.Rows, 0, float32(math.NaN())}
			list, err := moveOutputs(&format.Output{Name: w.Name}, view, true, BnBMove{})
			if err == nil {
				err = list[0].Fill(make([]byte, w.Size), 0)
			}
			if err == nil {
				t.Errorf("%s: %s: a change that is not a number is merged", file, w.Name)
			}
		}
	}
}

// TestRoundLevel: the mean is the value.
func TestRoundLevel(t *testing.T) {
	t.Parallel()
	levels := []float32{-1, 0, 0.5, 2}
	s := rng.New(1)
	for _, c := range []struct{ y, mean float64 }{{-3, -1}, {-1, -1}, {-0.25, -0.25}, {0, 0}, {0.4, 0.4}, {1.7, 1.7}, {2, 2}, {9, 2}} {
		for from := range levels {
			sum := 0.0
			const n = 20000
			for i := range n {
				sum += float64(levels[RoundLevel(levels, uint8(from), c.y, s.Float64(uint64(i)))])
			}
			if math.Abs(sum/n-c.mean) > 0.02 {
				t.Errorf("%v from level %d becomes %v in the mean, want %v", c.y, from, sum/n, c.mean)
			}
		}
	}
}

// TestBnBMoveFolder changes one matrix of folders that transformers saved.
func TestBnBMoveFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"llama-nf4-dq", "llama-int8"} {
		path := testutil.Shared(t, "oracle", "bnb", name)
		base := openArch(t, path)
		const target = "blk.0.attn_q.weight" // whose rows GGUF orders otherwise
		views := make([]*format.View, len(base.Views))
		for i, v := range base.Views {
			w := *v
			if w.Name == target {
				w.Rows = plusRows{v.Rows, 0.1, 0}
			}
			views[i] = &w
		}
		sum := base.With(views)
		for _, opt := range []BnBMove{{}, {Anew: true}} {
			var first []byte
			for _, memory := range []int64{0, 3000} {
				f, err := NewBnBMove(base, sum, func(tensor string) bool { return tensor == target }, opt)
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(t.TempDir(), name)
				if err := f.Write(context.Background(), dir, false, format.RunOptions{Memory: memory}); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = got
				} else if !bytes.Equal(first, got) {
					t.Errorf("%s: other bytes with other memory", name)
				}
				config, _ := os.ReadFile(filepath.Join(dir, "config.json"))
				if want, err := os.ReadFile(filepath.Join(path, "config.json")); err != nil || !bytes.Equal(config, want) {
					t.Errorf("%s: the configuration is another (%v)", name, err)
				}
				if memory > 0 {
					continue
				}
				merged := openArch(t, dir)
				for _, v := range base.Views {
					w := merged.View(v.Name)
					if w == nil || w.Type != v.Type {
						t.Fatalf("%s: %s is not there, or of another type", name, v.Name)
					}
					x, y := allRows(t, v.Rows), allRows(t, w.Rows)
					if v.Name != target {
						sameBits(t, v.Name, y, x)
						continue
					}
					var xy, xx float64
					for i := range x {
						xy, xx = xy+float64(x[i])*float64(y[i]), xx+float64(x[i])*float64(x[i])
					}
					if g := xy / xx; math.Abs(g-1.1) > 0.03 {
						t.Errorf("%s, anew %v: the matrix is %.3f times what it was, want 1.1", name, opt.Anew, g)
					}
				}
			}
		}
	}
}
