package adapter

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"sort"

	"github.com/graft-lora/graft/format"
)

// Matrix is a row-major matrix of float32.
type Matrix struct {
	Rows, Cols int
	Data       []float32 // len Rows*Cols
}

// Row is row i, not a copy.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Cols : (i+1)*m.Cols] }

// transposed returns the transpose of m, a copy.
func (m Matrix) transposed() Matrix {
	t := Matrix{Rows: m.Cols, Cols: m.Rows, Data: make([]float32, len(m.Data))}
	for i := range m.Rows {
		for j, x := range m.Row(i) {
			t.Data[j*m.Rows+i] = x
		}
	}
	return t
}

// ordered returns a copy of m whose row i is row at(i) of m.
func (m Matrix) ordered(at func(int64) int64) Matrix {
	o := Matrix{Rows: m.Rows, Cols: m.Cols, Data: make([]float32, len(m.Data))}
	for i := range m.Rows {
		copy(o.Row(i), m.Row(int(at(int64(i)))))
	}
	return o
}

// Pair is the change of one matrix.
type Pair struct {
	// Target is the GGUF tensor that the pair changes; "" before Resolve unless the
	// source is GGUF.
	Target string
	// Module is the Hugging Face module, or in a source that has other names, that
	// name.
	Module string
	// Expert is the matrix's place in a stack of experts, -1 if Target is no stack.
	Expert int

	A    Matrix // Rank x in
	B    Matrix // out x Rank
	Rank int
	// Scale multiplies B*A: alpha/r, or whatever the source says instead.
	Scale float32
	// Magnitude are the row norms of DoRA, len out: the row i of the changed matrix
	// W + Scale*B*A is scaled to that norm. nil for plain LoRA.
	Magnitude []float32
	// Columns says that Magnitude are norms of columns instead, len in: older LyCORIS.
	Columns bool
	// NormEpsilon is added to each norm that is divided by.
	NormEpsilon float32

	// Row is the row of Target at which the changed matrix begins: not 0 where the base
	// keeps several matrices in one tensor.
	Row int
	// Vector says that Target is a vector (a norm, a bias), changed by the one row of A.
	Vector bool
	// Kernel is the size of a convolution (height and width), whose weight, out x in x
	// height x width, is seen as a matrix of out rows; nil for a matrix.
	Kernel []int64

	full   Matrix    // the whole of B*A where the source has it so
	onBase *onBase   // what the change still lacks of the base
	was    []float32 // the base's values of a vector, in Hugging Face's terms, where they are known
	suffix string    // ".bias" where the change is of a module's bias
	part   bool      // Target holds other matrices besides, see Row
	// swapped: under the name Module the two halves of the rows stand the other way round.
	swapped bool

	// embedding says that PEFT keeps the pair as that of an embedding, transposed.
	embedding bool
	// alpha is Scale*Rank in the source's own precision; 0 if only Scale is known.
	alpha float64
}

// Alpha is Scale * Rank: the alpha of a format that divides it by the rank.
func (p *Pair) Alpha() float64 {
	if p.alpha != 0 && float32(p.alpha/float64(p.Rank)) == p.Scale {
		return p.alpha
	}
	return float64(p.Scale) * float64(p.Rank)
}

// Adapter is a set of pairs.
type Adapter struct {
	Path   string
	Format string // "peft", "gguf", "mlx", "kohya"
	Name   string // general.name of a GGUF adapter; else the name of the folder or file
	Arch   string // GGUF architecture of the base; "" if the source does not say
	Base   string // what the source calls its base model; often ""
	Type   format.Type
	Pairs  []*Pair
	Tokens *Tokens // rows of tokens; nil if it has none
	// Meta is what the file carries besides: the metadata of a safetensors file, the
	// graft.* keys of a GGUF file.
	Meta map[string]string
	// Invocation are the tokens after which an activated LoRA begins to act.
	Invocation []uint32

	// native says that rows stand as in GGUF, not as in Hugging Face checkpoints.
	native bool
	// resolved says that every pair has its Target, and toHF where rows moved.
	resolved bool
	toHF     map[string]func(int64) int64
	modules  []string       // of the base, those with a matrix
	tied     bool           // the base's head is its embedding
	experts  map[string]int // how many matrices a stack of the base has
	saved    savedBase
}

// New makes an adapter of pairs that have their Target and rows in GGUF's order, as
// a trainer has them. It must be resolved before it is written.
func New(name, arch string, pairs []*Pair) *Adapter {
	return &Adapter{Name: name, Arch: arch, Format: "gguf", Type: format.F32, Pairs: pairs, native: true}
}

// Reader knows one format of adapters.
type Reader struct {
	Name string
	// Sniff says by content whether the file or folder at path is of this format.
	Sniff func(path string) bool
	// Open reads it.
	Open func(path string) (*Adapter, error)
}

var readers []Reader

// Register adds a format. It is called from init functions only.
func Register(r Reader) { readers = append(readers, r) }

func init() {
	Register(Reader{"gguf", sniffGGUF, openGGUF})
	Register(Reader{"peft", sniffPEFT, openPEFT})
	Register(Reader{"mlx", sniffMLX, openMLX})
	Register(Reader{"kohya", sniffKohya, openKohya})
}

// Is says whether something at path looks like an adapter of a known format.
func Is(path string) bool { return sniff(path) != nil }

func sniff(path string) *Reader {
	for i := range readers {
		if readers[i].Sniff(path) {
			return &readers[i]
		}
	}
	return nil
}

// Open reads the adapter at path, a file or a folder, of any registered format.
func Open(path string) (*Adapter, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	r := sniff(path)
	if r == nil {
		return nil, format.Unsupported("%s is no adapter of a known format", path)
	}
	a, err := r.Open(path)
	if err != nil {
		return nil, err
	}
	if len(a.Pairs) == 0 && a.Tokens == nil {
		return nil, &format.CorruptError{Path: path, Offset: -1, Err: fmt.Errorf("holds no pair of matrices")}
	}
	for _, p := range a.Pairs {
		if p.Scale-p.Scale != 0 {
			return nil, &format.CorruptError{Path: path, Offset: -1, Field: "module " + name(p), Err: fmt.Errorf("its scale is %v", p.Scale)}
		}
	}
	sort.SliceStable(a.Pairs, func(i, j int) bool { return a.Pairs[i].Module < a.Pairs[j].Module })
	return a, nil
}

// exists says whether there is a file at path.
func exists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeDir == 0
}

// readMatrix decodes a stored tensor as a matrix; a vector is a matrix of one row.
// Numbers that are not finite are an error.
func readMatrix(t *format.Tensor) (Matrix, error) {
	if len(t.Shape) > 2 {
		return Matrix{}, format.Unsupported("%s: tensor %s has shape %v: adapters of convolutions and stacks", t.Path, t.Name, t.Shape)
	}
	if t.Rows() > math.MaxInt32 || t.Cols() > math.MaxInt32 {
		return Matrix{}, &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name, Err: fmt.Errorf("shape %v is too large", t.Shape)}
	}
	data, err := readAll(t)
	return Matrix{Rows: int(t.Rows()), Cols: int(t.Cols()), Data: data}, err
}

func readAll(t *format.Tensor) ([]float32, error) {
	rows, err := format.StoredRows(t)
	if err != nil {
		return nil, err
	}
	data := make([]float32, t.Rows()*t.Cols())
	if err := rows.ReadRows(data, 0); err != nil {
		return nil, err
	}
	for i, x := range data {
		if x-x != 0 {
			return nil, &format.CorruptError{Path: t.Path, Offset: t.Offset, Field: "tensor " + t.Name,
				Err: fmt.Errorf("element %d is %v", i, x)}
		}
	}
	return data, nil
}

// everywhere refuses to write an adapter that acts from an invocation on in a form that
// cannot say so.
func (a *Adapter) everywhere(form string) error {
	if len(a.Invocation) > 0 {
		return format.Unsupported("%s cannot say that the adapter acts from an invocation on (aLoRA): PEFT and GGUF can", form)
	}
	return nil
}

// halves gathers the parts of pairs while a file is read.
type halves struct {
	path  string
	pairs []*Pair
	index map[string]*Pair
	saved []string // modules whose base weights are in the file
	whole []*Pair  // modules that were trained as a whole
}

func (h *halves) pair(module string) *Pair {
	if p := h.index[module]; p != nil {
		return p
	}
	if h.index == nil {
		h.index = map[string]*Pair{}
	}
	p := &Pair{Module: module, Expert: -1}
	h.index[module] = p
	h.pairs = append(h.pairs, p)
	return p
}

// finish checks that all pairs are whole and sets their ranks.
func (h *halves) finish() ([]*Pair, error) {
	for _, p := range h.pairs {
		bad := func(f string, args ...any) error {
			return &format.CorruptError{Path: h.path, Offset: -1, Field: "module " + p.Module, Err: fmt.Errorf(f, args...)}
		}
		switch {
		case p.A.Data == nil && p.B.Data == nil:
			return nil, bad("has neither A nor B")
		case p.A.Data == nil:
			return nil, bad("has B but no A")
		case p.B.Data == nil:
			return nil, bad("has A but no B")
		case p.A.Rows != p.B.Cols:
			return nil, bad("A has rank %d, B %d", p.A.Rows, p.B.Cols)
		case p.A.Rows == 0:
			return nil, bad("has rank 0")
		case p.Magnitude != nil && len(p.Magnitude) != p.B.Rows:
			return nil, bad("has %d magnitudes for %d rows", len(p.Magnitude), p.B.Rows)
		}
		p.Rank = p.A.Rows
	}
	return h.pairs, nil
}
