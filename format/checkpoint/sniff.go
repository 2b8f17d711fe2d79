package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/gguf"
	"github.com/graft-lora/graft/format/safetensors"
)

// Kind is what a path holds.
type Kind int

// The kinds.
const (
	Unknown       Kind = iota
	GGUFModel          // a GGUF model, or any shard of one
	GGUFAdapter        // a GGUF LoRA adapter
	GGUFImatrix        // an importance matrix in GGUF
	LegacyImatrix      // an importance matrix of the older form
	Safetensors        // a safetensors file of no adapter known
	Folder             // a Hugging Face model folder
	PEFTFolder         // adapter_config.json of PEFT with its tensors
	PEFTFile           // the tensors of a PEFT adapter alone
	MLXFolder          // an adapter folder of MLX
	MLXFile            // the tensors of an MLX adapter alone
	KohyaFile          // an adapter file of kohya's scripts or LyCORIS
	PickleFile         // a zip or pickle file of PyTorch
)

var kindNames = [...]string{
	"unknown", "GGUF model", "GGUF adapter", "GGUF importance matrix", "importance matrix", "safetensors file", "model folder",
	"PEFT adapter folder", "PEFT adapter file", "MLX adapter folder", "MLX adapter file", "kohya adapter file", "PyTorch pickle file",
}

func (k Kind) String() string { return kindNames[k] }

// Adapter says whether k is an adapter of any format.
func (k Kind) Adapter() bool {
	switch k {
	case GGUFAdapter, PEFTFolder, PEFTFile, MLXFolder, MLXFile, KohyaFile:
		return true
	}
	return false
}

// Sniff tells what path holds, by its content and not by its name. What it does
// not know is an UnsupportedError; a file that is damaged so far that its kind
// cannot be read is the reader's CorruptError.
func Sniff(path string) (Kind, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Unknown, err
	}
	if st.IsDir() {
		return sniffDir(path)
	}
	head, err := readHead(path)
	if err != nil {
		return Unknown, err
	}
	switch {
	case len(head) == 0:
		return Unknown, &format.CorruptError{Path: path, Offset: 0, Err: errors.New("the file is empty")}
	case strings.HasPrefix(string(head), "GGUF"):
		return sniffGGUF(path)
	case looksLikeSafetensors(head): // before pickle, whose first two bytes may begin a header's length, too
		return sniffSafetensors(path)
	case strings.HasPrefix(string(head), "PK\x03\x04"), head[0] == 0x80 && len(head) > 1 && head[1] >= 2 && head[1] <= 5:
		return PickleFile, nil
	case looksLikeImatrix(head):
		return LegacyImatrix, nil
	}
	return Unknown, format.Unsupported("%s: neither GGUF nor safetensors nor anything else that graft reads", path)
}

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return head[:n], err
}

// looksLikeSafetensors: a length of at most 100 MB and then JSON.
func looksLikeSafetensors(head []byte) bool {
	if len(head) < 9 || binary.LittleEndian.Uint64(head) > 100_000_000 {
		return false
	}
	rest := strings.TrimLeft(string(head[8:]), " \t\r\n")
	return strings.HasPrefix(rest, "{")
}

// looksLikeImatrix: a count of entries, then a first entry with a printable name.
func looksLikeImatrix(head []byte) bool {
	if len(head) < 12 {
		return false
	}
	count, n := int32(binary.LittleEndian.Uint32(head)), int(int32(binary.LittleEndian.Uint32(head[4:])))
	if count <= 0 || n <= 0 || n > len(head)-8 {
		return false
	}
	for _, c := range head[8 : 8+n] {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func sniffGGUF(path string) (Kind, error) {
	f, err := gguf.OpenShard(path)
	if err != nil {
		return Unknown, err
	}
	defer f.Close()
	switch kind, _ := f.Meta.Str("general.type"); kind {
	case "adapter":
		return GGUFAdapter, nil
	case "imatrix":
		return GGUFImatrix, nil
	case "", "model":
		return GGUFModel, nil
	default:
		return Unknown, format.Unsupported("%s: GGUF of type %q", path, kind)
	}
}

func sniffSafetensors(path string) (Kind, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return Unknown, err
	}
	defer f.Close()
	for _, t := range f.Tensors {
		switch {
		case strings.Contains(t.Name, ".lora_A.") || strings.Contains(t.Name, ".lora_B.") ||
			strings.Contains(t.Name, ".lora_embedding_A") || strings.Contains(t.Name, ".lora_embedding_B"):
			return PEFTFile, nil
		case strings.HasSuffix(t.Name, ".lora_a") || strings.HasSuffix(t.Name, ".lora_b"):
			return MLXFile, nil
		case isKohya(t.Name):
			return KohyaFile, nil
		}
	}
	return Safetensors, nil
}

// isKohya knows the endings of kohya's LoRA and of the LyCORIS methods.
func isKohya(name string) bool {
	if strings.HasPrefix(name, "lora_unet_") || strings.HasPrefix(name, "lora_te") {
		return true
	}
	for _, part := range []string{".lora_down.", ".lora_up.", ".hada_w1", ".hada_w2", ".lokr_w1", ".lokr_w2", ".lora_mid.", "_lora.down.", "_lora.up.", ".lora.down.", ".lora.up.", ".lora_linear_layer."} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return strings.HasPrefix(name, "lycoris_") || strings.HasSuffix(name, ".diff") || strings.HasSuffix(name, ".w_norm")
}

func sniffDir(dir string) (Kind, error) {
	path := filepath.Join(dir, AdapterConfigName)
	data, err := readSide(path)
	if err != nil {
		return Unknown, err
	}
	if data != nil {
		c, err := ParseConfig(path, data)
		switch {
		case err != nil:
			return Unknown, err
		case c.Has("peft_type"):
			return PEFTFolder, nil
		case c.Has("fine_tune_type") || c.Has("lora_parameters"):
			return MLXFolder, nil
		}
		return sniffAdapterDir(dir)
	}
	if _, err := os.Stat(filepath.Join(dir, ConfigName)); err == nil {
		return Folder, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Unknown, err
	}
	return Unknown, fmt.Errorf("%s: neither %s nor %s is there: %w", dir, ConfigName, AdapterConfigName, fs.ErrNotExist)
}

// sniffAdapterDir decides by the tensors when adapter_config.json says neither.
func sniffAdapterDir(dir string) (Kind, error) {
	for name, kind := range map[string]Kind{AdapterWeightsName: PEFTFolder, "adapters.safetensors": MLXFolder} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return kind, nil
		}
	}
	return Unknown, format.Unsupported("%s: an adapter folder of neither PEFT nor MLX", dir)
}
