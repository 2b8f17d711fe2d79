package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	oracle "github.com/nlpodyssey/safetensors"
	"pgregory.net/rapid"

	"github.com/graft-lora/graft/format"
)

// output is a tensor of a plan whose bytes are a function of its name.
func output(name string, typ format.Type, shape ...int64) *format.Output {
	o := &format.Output{Name: name, Type: typ, Shape: shape, Units: 1}
	n, err := format.Elements(shape)
	if err == nil {
		o.UnitBytes, err = typ.RowBytes(n)
	}
	if err != nil {
		panic(err)
	}
	o.Fill = func(dst []byte, unit int64) error {
		for i := range dst {
			dst[i] = byte(i*31 + len(name))
		}
		return nil
	}
	return o
}

// TestOrder: the widest dtype first, names ascending within one, and a header that
// ends on a multiple of eight.
func TestOrder(t *testing.T) {
	t.Parallel()
	outputs := func() *format.Plan {
		return &format.Plan{Outputs: []*format.Output{output("b", format.F16, 1), output("a<", format.F32, 2), output("z", format.U8, 3),
			output("a", format.F16, 1), output("é\"\n\x01", format.I64)}}
	}
	plan := outputs()
	l, err := LayoutOf("x", plan, map[string]string{"k": "2", "format": "pt"}, WriteOptions{MetadataKeys: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"__metadata__":{"k":"2","format":"pt"},"é\"\n\u0001":{"dtype":"I64","shape":[],"data_offsets":[0,8]},` +
		`"a<":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"F16","shape":[1],"data_offsets":[16,18]},` +
		`"b":{"dtype":"F16","shape":[1],"data_offsets":[18,20]},"z":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}}`
	header := string(l.Shards[0].Header[8:])
	if strings.TrimRight(header, " ") != want || len(l.Shards[0].Header)%8 != 0 {
		t.Errorf("header %s\nwant   %s", header, want)
	}
	if plan.Outputs[0].Name != "é\"\n\x01" || plan.Outputs[4].Name != "z" {
		t.Error("the plan was not put into the order of the file")
	}
	kept := outputs()
	if _, err := LayoutOf("x", kept, nil, WriteOptions{PlanOrder: true}); err != nil || kept.Outputs[0].Name != "b" {
		t.Errorf("the order of the plan was not kept: %v", err)
	}
}

// TestRoundTrip writes tensors of all dtypes and reads them with both readers.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		plan := &format.Plan{}
		seen := map[string]bool{metadataKey: true}
		old := true // only dtypes that the other reader knows
		for range rapid.IntRange(0, 7).Draw(r, "tensors") {
			name := rapid.String().Draw(r, "name")
			if seen[name] {
				continue
			}
			seen[name] = true
			d := rapid.SampledFrom(dtypes[:]).Draw(r, "dtype")
			old = old && !strings.HasPrefix(d.name, "F4") && !strings.HasPrefix(d.name, "F6") && !strings.HasPrefix(d.name, "F8") && d.name != "C64"
			shape := rapid.SliceOfN(rapid.Int64Range(0, 5), 0, 4).Draw(r, "shape")
			if info, _ := d.typ.Info(); info.Bits < 8 {
				shape = append(shape, 4)
			}
			plan.Outputs = append(plan.Outputs, output(name, d.typ, shape...))
		}
		metadata := rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "metadata")
		path := filepath.Join(dir, fmt.Sprint(n))
		n++
		defer os.Remove(path)
		w, err := Create(path, plan, metadata, WriteOptions{PlanOrder: rapid.Bool().Draw(r, "plan order")})
		if err != nil {
			r.Fatal(err)
		}
		if err := format.Run(t.Context(), plan, w, format.RunOptions{}); err != nil {
			r.Fatal(err)
		}
		if err := w.Close(); err != nil {
			r.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			r.Fatal(err)
		}
		f, err := read(data)
		if err != nil {
			r.Fatal(err)
		}
		if len(f.Metadata) != len(metadata) || len(f.Tensors) != len(plan.Outputs) {
			r.Fatalf("%d metadata, %d tensors", len(f.Metadata), len(f.Tensors))
		}
		for k, v := range metadata {
			if f.Metadata[k] != v {
				r.Fatalf("metadata %q is %q, want %q", k, f.Metadata[k], v)
			}
		}
		for _, o := range plan.Outputs {
			x := f.Tensor(o.Name)
			got, want := make([]byte, x.Size), make([]byte, o.Size())
			o.Fill(want, 0)
			if _, err := x.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) || x.Type != o.Type {
				r.Fatalf("tensor %q differs: %v", o.Name, err)
			}
		}
		if st, err := oracle.Deserialize(data); old {
			if err != nil {
				r.Fatal(err)
			}
			compare(t, f, st)
		}
	})
}

// TestShards writes a folder of several files and reads it through its index.
func TestShards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plan := &format.Plan{}
	for i := range 7 {
		plan.Outputs = append(plan.Outputs, output(fmt.Sprintf("t%d", 6-i), []format.Type{format.F16, format.F32}[i%2], int64(10*(i+1))))
	}
	w, err := CreateDir(dir, plan, map[string]string{"format": "pt"}, WriteOptions{MaxShardSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w, plan)
	f, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Shards) < 3 || len(f.Tensors) != 7 || f.Metadata["format"] != "pt" {
		t.Errorf("%d files, %d tensors, metadata %v", len(f.Shards), len(f.Tensors), f.Metadata)
	}
	for _, o := range plan.Outputs {
		want := make([]byte, o.Size())
		o.Fill(want, 0)
		if x := f.Tensor(o.Name); x == nil || !bytes.Equal(x.Bytes(), want) {
			t.Errorf("tensor %s differs", o.Name)
		}
	}
	for _, s := range f.Shards {
		if data := s.Size - s.DataOffset; data > 300 && s.Tensors > 1 {
			t.Errorf("%s holds %d bytes of data", s.Path, data)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Metadata  struct{ TotalSize int64 } `json:"metadata"`
		WeightMap map[string]string         `json:"weight_map"`
	}
	index.Metadata.TotalSize = -1
	if err := json.Unmarshal(bytes.Replace(text, []byte("total_size"), []byte("TotalSize"), 1), &index); err != nil {
		t.Fatal(err)
	}
	if index.Metadata.TotalSize != plan.Size() || len(index.WeightMap) != 7 {
		t.Errorf("index %s", text)
	}
	if _, err := CreateDir(dir, plan, nil, WriteOptions{MaxShardSize: 300}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing files: %v", err)
	}
}

// TestIndexDisagrees opens folders whose index is wrong.
func TestIndexDisagrees(t *testing.T) {
	t.Parallel()
	const one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	for name, c := range map[string]struct {
		index string
		want  string // in the error; "" if it is right
	}{
		"right":          {`{"metadata":{"total_size":1},"weight_map":{"a":"` + one + `","b":"` + two + `"}}`, ""},
		"no metadata":    {`{"weight_map":{"a":"` + one + `","b":"` + two + `"}}`, ""},
		"missing tensor": {`{"weight_map":{"a":"` + one + `","b":"` + two + `","c":"` + two + `"}}`, "tensor c"},
		"fewer files":    {`{"weight_map":{"a":"` + one + `"}}`, ""},
		"extra tensor":   {`{"weight_map":{"b":"` + two + `","x":"` + one + `"}}`, "tensor a"},
		"swapped":        {`{"weight_map":{"a":"` + two + `","b":"` + one + `"}}`, "tensor"},
		"no file":        {`{"weight_map":{"a":"` + one + `","b":"other.safetensors"}}`, "other.safetensors"},
		"outside":        {`{"weight_map":{"a":"../` + one + `"}}`, "no name of a file"},
		"absolute":       {`{"weight_map":{"a":"/etc/passwd"}}`, "no name of a file"},
		"twice":          {`{"weight_map":{"a":"` + one + `","a":"` + one + `"}}`, "twice"},
		"no map":         {`{"metadata":{}}`, "weight_map"},
		"no JSON":        {`{`, "JSON"},
		"empty":          {``, "JSON"},
	} {
		dir := t.TempDir()
		for file, tensor := range map[string]string{one: "a", two: "b"} {
			plan := &format.Plan{Outputs: []*format.Output{output(tensor, format.U8, 3)}}
			w, err := Create(filepath.Join(dir, file), plan, nil, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			run(t, w, plan)
		}
		if err := os.WriteFile(filepath.Join(dir, indexName), []byte(c.index), 0o666); err != nil {
			t.Fatal(err)
		}
		f, err := OpenDir(dir)
		if err == nil {
			f.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestRefused has plans that cannot be written.
func TestRefused(t *testing.T) {
	t.Parallel()
	short := output("a", format.F32, 4)
	short.UnitBytes = 12
	for name, outputs := range map[string][]*format.Output{
		"two names": {output("a", format.F32, 1), output("a", format.F16, 1)},
		"metadata":  {output(metadataKey, format.F32, 1)},
		"not UTF-8": {output("\xff", format.F32, 1)},
		"ggml type": {output("a", format.Q8_0, 32)},
		"size":      {short},
	} {
		dir := t.TempDir()
		if w, err := Create(filepath.Join(dir, "x"), &format.Plan{Outputs: outputs}, nil, WriteOptions{}); err == nil {
			w.Abort()
			t.Errorf("%s: accepted", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}
