package kernel

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/graft-lora/graft/internal/cpu"
)

var update = flag.Bool("update", false, "write testdata/digests.txt")

// TestRowDigests compares what each operation makes of the same rows, some with special
// values, with a file that machines of other kinds are compared with too.
func TestRowDigests(t *testing.T) {
	const path = "testdata/digests.txt"
	want := map[string]string{}
	if !*update {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			name, sum, _ := strings.Cut(s.Text(), "\t")
			want[name] = sum
		}
	}
	var made strings.Builder
	for _, tier := range cpu.Tiers() {
		made.Reset()
		for _, op := range rowOps {
			rng := rand.New(rand.NewPCG(11, uint64(len(op.name))))
			h := sha256.New()
			var word [8]byte
			for n := 0; n <= 130; n += 13 {
				for _, specials := range []bool{false, true} {
					a := newArena(n, 3, rng, false)
					// Values that need no logarithm, which machines round differently.
					for _, row := range a.words {
						for j := range row {
							row[j] = float32(rng.IntN(1<<24)-1<<23) * float32(math.Ldexp(1, rng.IntN(12)-30))
							if specials && rng.IntN(4) == 0 {
								row[j] = special[rng.IntN(len(special))]
							}
						}
					}
					restore := cpu.Force(tier)
					r := a.run(op)
					restore()
					if r != r {
						r = math.NaN() // whatever its payload
					}
					binary.LittleEndian.PutUint64(word[:], math.Float64bits(r))
					h.Write(word[:])
					for _, row := range a.words {
						for _, v := range row {
							u := math.Float32bits(v)
							if v != v {
								u = 0x7fc00000
							}
							binary.LittleEndian.PutUint32(word[:], u)
							h.Write(word[:4])
						}
					}
					h.Write(a.bytes)
				}
			}
			sum := fmt.Sprintf("%x", h.Sum(nil)[:16])
			fmt.Fprintf(&made, "%s\t%s\n", op.name, sum)
			if !*update && sum != want[op.name] {
				t.Errorf("%v: %s has the digest %s, %s says %s", tier, op.name, sum, path, want[op.name])
			}
		}
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(made.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
