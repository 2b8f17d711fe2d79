package quant

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/arch"
	"github.com/graft-lora/graft/format/convert"
)

// BnBOptions says what a bitsandbytes folder holds.
type BnBOptions struct {
	Type format.Type // NF4, FP4 or INT8
	// Nested is double quantization: the scales of NF4 and FP4 are quantized too.
	Nested bool
	// AllowRequantize lets a model be quantized that is quantized already.
	AllowRequantize bool
}

// NewBnBPlan plans a Hugging Face folder whose matrices bitsandbytes has quantized:
// those of attention and feed-forward blocks. Embeddings, norms, the head, and the
// routers and experts of mixtures, which transformers does not quantize either, are
// what [convert.ToHF] plans. Codes and scales are those of the library's CPU backend.
//
// All but double quantization is planned from headers; that reads the matrices once,
// since the mean of the scales stands in a text whose length the file's header must
// give. The mean is summed in double precision, where torch sums in single, so its
// last bits can differ.
func NewBnBPlan(m *arch.Model, opt BnBOptions) (*convert.HFFolder, error) {
	if opt.Type != format.NF4 && opt.Type != format.FP4 && opt.Type != format.INT8 {
		return nil, format.Usagef("bitsandbytes has nf4, fp4 and int8, not %v", opt.Type)
	}
	if opt.Nested && opt.Type == format.INT8 {
		return nil, format.Usagef("double quantization is for nf4 and fp4; int8 has one scale a row")
	}
	f, byName, err := hfPlan(m)
	if err != nil {
		return nil, err
	}
	plan := &format.Plan{}
	experts := false
	dtype := format.F32
	for _, o := range f.Plan.Outputs {
		v := byName[o.Name]
		if strings.Contains(v.GGUF, "_exps.") {
			experts = true
		}
		if !bnbQuantizes(v) {
			plan.Outputs = append(plan.Outputs, o)
			continue
		}
		if v.Type.Quantized() && !opt.AllowRequantize {
			return nil, format.Usagef("tensor %s is %v already and would become %v, which loses more than quantizing a float file; allow requantizing if there is none", o.Name, v.Type, opt.Type)
		}
		dtype = o.Type
		outputs, err := bnbOutputs(o, v.Rows, v.Type, opt)
		if err != nil {
			return nil, fmt.Errorf("%s: tensor %s: %w", m.Path, o.Name, err)
		}
		plan.Outputs = append(plan.Outputs, outputs...)
	}
	f.Plan = plan
	if experts {
		f.Notes = append(f.Notes, "experts and routers are not quantized: transformers loads them as they are")
	}
	return f, f.SetQuantization(bnbConfig(opt, dtype, experts))
}

// hfPlan plans the folder of floats of a model, and gives its tensors by their names there.
func hfPlan(m *arch.Model) (*convert.HFFolder, map[string]*arch.HFView, error) {
	f, err := convert.ToHF(m, convert.HFOptions{})
	if err != nil {
		return nil, nil, err
	}
	views, err := m.HF()
	if err != nil {
		return nil, nil, err
	}
	byName := map[string]*arch.HFView{}
	for _, v := range views {
		byName[v.Name] = v
	}
	return f, byName, nil
}

// bnbQuantizes says whether transformers makes a quantized module of a tensor.
func bnbQuantizes(v *arch.HFView) bool {
	kind := strings.TrimPrefix(v.GGUF, "blk.")
	if kind == v.GGUF || len(v.Shape) != 2 || !strings.HasSuffix(v.Name, ".weight") || v.Shape[0] == 0 || v.Shape[1] == 0 {
		return false
	}
	for _, part := range []string{"_norm.", "_exps.", "ffn_gate_inp"} {
		if strings.Contains(kind, part) {
			return false
		}
	}
	return strings.Contains(kind, ".attn_") || strings.Contains(kind, ".ffn_")
}

// bnbConfig is the quantization_config of the folder's config.json.
func bnbConfig(opt BnBOptions, dtype format.Type, experts bool) map[string]any {
	four := opt.Type != format.INT8
	compute, kind := "float32", "fp4" // what the library writes where they mean nothing
	if four {
		compute, kind = torchName(dtype), opt.Type.String()
	}
	var skip any
	if experts {
		skip = []string{"lm_head", "gate", "shared_expert_gate", "experts"}
	}
	return map[string]any{
		"_load_in_4bit": four, "_load_in_8bit": !four, "load_in_4bit": four, "load_in_8bit": !four,
		"bnb_4bit_compute_dtype": compute, "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": kind,
		"bnb_4bit_use_double_quant": opt.Nested, "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
		"llm_int8_skip_modules": skip, "llm_int8_threshold": json.RawMessage("6.0"), "quant_method": "bitsandbytes",
	}
}

func torchName(t format.Type) string {
	switch t {
	case format.F16:
		return "float16"
	case format.BF16:
		return "bfloat16"
	}
	return "float32"
}

// bnbOutputs are the tensors that stand for the matrix o, whose rows are given; they
// are rounded to o's type first, as if o had been written and read.
func bnbOutputs(o *format.Output, rows format.RowReader, stored format.Type, opt BnBOptions) ([]*format.Output, error) {
	if stored != o.Type && o.Type != format.F32 {
		codec, err := format.EncoderOf(o.Type)
		if err != nil {
			return nil, err
		}
		rows = &roundedRows{rows, codec, o.Type}
	}
	p := &bnbPlanner{name: o.Name, rows: rows}
	p.count, p.cols = o.Shape[0]*o.Shape[1], o.Shape[1]
	if opt.Type == format.INT8 {
		return p.outputs8(o.Shape), nil
	}
	n, err := nibbleOf(opt.Type)
	if err != nil {
		return nil, err
	}
	p.nibble, p.block = n, defaultBlock
	return p.outputs4(o.Shape, torchName(o.Type), opt)
}

// roundedRows are rows as they are after they were stored in a type.
type roundedRows struct {
	format.RowReader
	codec format.Codec
	typ   format.Type
}

func (r *roundedRows) ReadRows(dst []float32, row int64) error {
	if err := r.RowReader.ReadRows(dst, row); err != nil {
		return err
	}
	_, cols := r.Dims()
	packed := make([]byte, len(dst)*r.typ.BlockBytes())
	if err := r.codec.Encode(packed, dst, int(cols), nil); err != nil {
		return err
	}
	r.codec.Decode(dst, packed)
	return nil
}

// Release gives back the pages of a mapped file.
func (r *roundedRows) Release() { release(r.RowReader) }

// bnbPlanner makes the tensors of one matrix. Nothing of it is held: each tensor
// reads the rows again.
type bnbPlanner struct {
	name        string
	rows        format.RowReader
	count, cols int64 // elements, and those of a row
	nibble      *nibble
	block       int64
	offset      float32 // of nested scales
}

func (p *bnbPlanner) output(name string, typ format.Type, shape []int64, units, unitBytes, cost int64, fill func(dst []byte, unit int64) error) *format.Output {
	return &format.Output{Name: name, Type: typ, Shape: shape, Why: "as bitsandbytes quantizes", Units: units, UnitBytes: unitBytes, Cost: cost, Fill: fill,
		Finish: func() error { release(p.rows); return nil }}
}

// constant is a tensor of known bytes.
func (p *bnbPlanner) constant(name string, typ format.Type, shape []int64, data []byte) *format.Output {
	return p.output(name, typ, shape, int64(len(data)), 1, 0, func(dst []byte, at int64) error {
		copy(dst, data[at:])
		return nil
	})
}

func (p *bnbPlanner) outputs4(shape []int64, dtype string, opt BnBOptions) ([]*format.Output, error) {
	blocks := (p.count + p.block - 1) / p.block
	packed := (p.count + 1) / 2
	state := fmt.Sprintf(`{"quant_type": "%v", "blocksize": %d, "dtype": "%s", "shape": [%d, %d]`, opt.Type, p.block, dtype, shape[0], shape[1])
	list := []*format.Output{
		p.output(p.name, format.U8, []int64{packed, 1}, packed, 1, 8, p.fillCodes),
		p.constant(p.name+".quant_map", format.F32, []int64{16}, putFloats(p.nibble.table[:])),
	}
	if opt.Nested {
		outer, err := p.nest(blocks)
		if err != nil {
			return nil, err
		}
		state += fmt.Sprintf(`, "nested_blocksize": %d, "nested_dtype": "float32", "nested_offset": %s`, nestedBlock, pythonFloat(float64(p.offset)))
		list = append(list,
			p.output(p.name+".absmax", format.U8, []int64{blocks}, blocks, 1, 4*p.block, p.fillNested),
			p.constant(p.name+".nested_absmax", format.F32, []int64{int64(len(outer))}, putFloats(outer)),
			p.constant(p.name+".nested_quant_map", format.F32, []int64{256}, putFloats(dynamicMap[:])))
	} else {
		list = append(list, p.output(p.name+".absmax", format.F32, []int64{blocks}, blocks, 4, 4*p.block, p.fillScales))
	}
	text := []byte(state + "}")
	return append(list, p.constant(p.name+".quant_state.bitsandbytes__"+opt.Type.String(), format.U8, []int64{int64(len(text))}, text)), nil
}

func (p *bnbPlanner) outputs8(shape []int64) []*format.Output {
	module := strings.TrimSuffix(p.name, "weight")
	fill := func(codes, scales []byte, row int64) error {
		n := int64(max(len(scales)/4, len(codes)/int(p.cols)))
		buf, out := make([]float32, p.cols), make([]byte, p.cols)
		for i := range n {
			if err := p.rows.ReadRows(buf, row+i); err != nil {
				return err
			}
			scale, err := quantizeInt8(out, buf)
			if err != nil {
				return fmt.Errorf("row %d: %w", row+i, err)
			}
			if codes != nil {
				copy(codes[i*p.cols:], out)
			} else {
				binary.LittleEndian.PutUint32(scales[4*i:], math.Float32bits(scale))
			}
		}
		return nil
	}
	return []*format.Output{
		p.output(p.name, format.I8, shape, shape[0], p.cols, 5*p.cols, func(dst []byte, row int64) error { return fill(dst, nil, row) }),
		p.output(module+"SCB", format.F32, shape[:1], shape[0], 4, 5*p.cols, func(dst []byte, row int64) error { return fill(nil, dst, row) }),
		p.constant(module+"weight_format", format.U8, []int64{}, []byte{0}),
	}
}

// elements reads elements from to to and gives them to f, whole blocks at a time (the
// last one of the matrix may be shorter). from is where a block begins.
func (p *bnbPlanner) elements(from, to int64, f func(at int64, x []float32) error) error {
	step := holdChunk / p.block * p.block
	buf := make([]float32, 0, min(step, to-from)+2*p.cols)
	for ; from < to; from += step {
		end := min(from+step, to)
		first, last := from/p.cols, (end+p.cols-1)/p.cols
		buf = buf[:(last-first)*p.cols]
		if err := p.rows.ReadRows(buf, first); err != nil {
			return err
		}
		if err := f(from, buf[from-first*p.cols:end-first*p.cols]); err != nil {
			return err
		}
	}
	return nil
}

// quantize makes codes and scales of the elements from on, where a block begins.
func (p *bnbPlanner) quantize(at int64, x []float32) (codes []byte, scales []float32, err error) {
	codes = make([]byte, (len(x)+1)/2)
	scales = make([]float32, (int64(len(x))+p.block-1)/p.block)
	if err := p.nibble.quantize(codes, scales, x, int(p.block)); err != nil {
		return nil, nil, fmt.Errorf("elements from %d: %w", at, err)
	}
	return codes, scales, nil
}

// fillCodes makes the bytes at of the packed matrix.
func (p *bnbPlanner) fillCodes(dst []byte, at int64) error {
	from := 2 * at / p.block * p.block
	to := min((2*(at+int64(len(dst)))+p.block-1)/p.block*p.block, p.count)
	return p.elements(from, to, func(first int64, x []float32) error {
		codes, _, err := p.quantize(first, x)
		if err != nil {
			return err
		}
		if skip := at - first/2; skip > 0 {
			copy(dst, codes[skip:])
		} else {
			copy(dst[-skip:], codes)
		}
		return nil
	})
}

// scalesOf makes the scales of blocks from block first on.
func (p *bnbPlanner) scalesOf(dst []float32, first int64) error {
	to := min((first+int64(len(dst)))*p.block, p.count)
	return p.elements(first*p.block, to, func(at int64, x []float32) error {
		out := dst[at/p.block-first:]
		for b := 0; len(x) > 0; b++ {
			part := x[:min(p.block, int64(len(x)))]
			x = x[len(part):]
			a, ok := maxAbs(part)
			if !ok {
				return fmt.Errorf("elements from %d: one is not finite", at+int64(b)*p.block)
			}
			if int64(len(part)) < p.block {
				a = max(a, leastScale)
			}
			out[b] = a
		}
		return nil
	})
}

func (p *bnbPlanner) fillScales(dst []byte, first int64) error {
	scales := make([]float32, len(dst)/4)
	if err := p.scalesOf(scales, first); err != nil {
		return err
	}
	encodeF32(dst, scales, nil)
	return nil
}

// nest reads all scales for their mean, and gives the scales of their blocks.
func (p *bnbPlanner) nest(blocks int64) ([]float32, error) {
	scales := make([]float32, blocks)
	const part = 1 << 12
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := int64(0); first < blocks; first += part {
		g.Go(func() error { return p.scalesOf(scales[first:min(first+part, blocks)], first) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	release(p.rows)
	p.offset = meanOf(scales)
	outer := make([]float32, (blocks+nestedBlock-1)/nestedBlock)
	quantizeScales(make([]byte, blocks), outer, scales, p.offset)
	return outer, nil
}

// fillNested makes the codes of the scales from first on.
func (p *bnbPlanner) fillNested(dst []byte, first int64) error {
	from := first / nestedBlock * nestedBlock
	blocks := (p.count + p.block - 1) / p.block
	to := min((first+int64(len(dst))+nestedBlock-1)/nestedBlock*nestedBlock, blocks)
	scales := make([]float32, to-from)
	if err := p.scalesOf(scales, from); err != nil {
		return err
	}
	codes := make([]byte, len(scales))
	quantizeScales(codes, make([]float32, (len(scales)+nestedBlock-1)/nestedBlock), scales, p.offset)
	copy(dst, codes[first-from:])
	return nil
}

// pythonFloat writes f as Python's json module does: the shortest digits that mean
// it, with an exponent below 1e-4 and from 1e16 on.
func pythonFloat(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
