package adapter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/graft-lora/graft/format"
)

// WriteOptions says how an adapter is written. The zero value is good.
type WriteOptions struct {
	Type  format.Type // of the matrices: F32 (the zero value), F16, BF16; in GGUF any type that encodes
	Force bool        // replace what stands at the path
	// Name is general.name in GGUF; "" makes it from the adapter's.
	Name string
	// Base is base_model_name_or_path in PEFT; "" keeps what the source said.
	Base    string
	Dropout float64 // lora_dropout in PEFT, for the record
	// Extra is further metadata, for provenance: of the safetensors file, or GGUF
	// keys, which must begin with "graft.". It is added to what the source carried.
	Extra map[string]string
	// Into writes the files of a PEFT folder into a folder that exists, each
	// atomically, instead of making the folder.
	Into bool
	// Beside are further files of a PEFT folder: the tokenizer of an adapter with tokens.
	// nil takes those over that the adapter was read with.
	Beside []File
}

// File is a small file of a folder.
type File struct {
	Name string
	Data []byte
}

var errUnresolved = format.Usagef("the adapter changes its format, and the names and the order of rows with it: give the model it belongs to with --base")

// errEmpty refuses to write what no reader accepts.
var errEmpty = errors.New("adapter: it holds no pair of matrices")

// extra joins the metadata of the source with the options'.
func (o *WriteOptions) extra(a *Adapter) map[string]string {
	all := map[string]string{}
	for k, v := range a.Meta {
		all[k] = v
	}
	for k, v := range o.Extra {
		all[k] = v
	}
	return all
}

// rows makes a matrix a source of rows; bytes are made where the type stays float32.
type rows struct{ m Matrix }

func (r rows) Dims() (int64, int64) { return int64(r.m.Rows), int64(r.m.Cols) }
func (r rows) RawType() format.Type { return format.F32 }
func (r rows) check(row int64, n int) error {
	if row < 0 || int(row)*r.m.Cols+n > len(r.m.Data) {
		return fmt.Errorf("rows from %d of %d", row, r.m.Rows)
	}
	return nil
}

func (r rows) ReadRows(dst []float32, row int64) error {
	if err := r.check(row, len(dst)); err != nil {
		return err
	}
	copy(dst, r.m.Data[int(row)*r.m.Cols:])
	return nil
}

func (r rows) ReadRaw(dst []byte, row int64) error {
	if err := r.check(row, len(dst)/4); err != nil {
		return err
	}
	for i, x := range r.m.Data[int(row)*r.m.Cols:][:len(dst)/4] {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
	return nil
}

// output plans one matrix. Rows that the type's blocks do not divide (B's, of a small
// rank) become float16, as the reference converter has it.
func output(plan *format.Plan, name string, typ format.Type, shape []int64, m Matrix) error {
	if _, err := typ.RowBytes(int64(m.Cols)); err != nil && typ.Quantized() {
		typ = format.F16
	}
	o, err := format.NewOutput(name, typ, shape, rows{m}, nil)
	if err != nil {
		return err
	}
	plan.Outputs = append(plan.Outputs, o)
	return nil
}

func dims(m Matrix) []int64 { return []int64{int64(m.Rows), int64(m.Cols)} }

// finisher is what the writers of both formats have besides being sinks.
type finisher interface {
	format.Sink
	Close() error
	Abort()
}

// carry runs a plan into w and completes it.
func carry(plan *format.Plan, w finisher) error {
	defer w.Abort()
	if err := format.Run(context.Background(), plan, w, format.RunOptions{}); err != nil {
		return err
	}
	return w.Close()
}

// common gives the most frequent value, the first of those equally frequent.
func common[T comparable](values []T) T {
	count := map[T]int{}
	var best T
	for _, v := range values {
		count[v]++
	}
	for i, v := range values {
		if i == 0 || count[v] > count[best] {
			best = v
		}
	}
	return best
}
