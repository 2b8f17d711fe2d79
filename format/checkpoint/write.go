package checkpoint

import (
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// Writer writes a model folder, which appears whole at Commit or not at all:
//
//	w, err := checkpoint.CreateDir(dir, force)
//	if err != nil {
//		return err
//	}
//	defer w.Abort() // does nothing after Commit
//	if err := w.WriteFile(checkpoint.ConfigName, config); err != nil {
//		return err
//	}
//	t, err := w.Tensors(plan, metadata, safetensors.WriteOptions{})
//	... format.Run(ctx, plan, t, ...), t.Close()
//	return w.Commit()
type Writer struct {
	*atomicfile.Dir
}

// CreateDir begins the folder dir. If it exists and is not empty it is refused
// unless force is set: then Commit replaces it as a whole.
func CreateDir(dir string, force bool) (*Writer, error) {
	d, err := atomicfile.CreateDir(dir, force)
	if err != nil {
		return nil, err
	}
	return &Writer{Dir: d}, nil
}

// Tensors begins the tensors of the folder: model.safetensors, or shards with
// their index. The caller closes the sink before Commit.
func (w *Writer) Tensors(plan *format.Plan, metadata map[string]string, opt safetensors.WriteOptions) (*safetensors.Writer, error) {
	return safetensors.CreateDir(w.Join(), plan, metadata, opt)
}
