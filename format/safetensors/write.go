package safetensors

import (
	"path/filepath"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/shardfile"
)

// Writer writes the tensors of a plan to one or several files. It is a
// [format.Sink]. The files get their names when Close has found all of them
// complete and has synced them, the index last. Abort removes what was written; it
// does nothing after Close, so that it can be deferred.
type Writer struct {
	*shardfile.Writer
	layout *Layout
}

// Create begins the file path for the tensors of plan; see [LayoutOf], which may
// sort the plan. metadata may be nil.
func Create(path string, plan *format.Plan, metadata map[string]string, opt WriteOptions) (*Writer, error) {
	l, err := LayoutOf(path, plan, metadata, opt)
	if err != nil {
		return nil, err
	}
	return create(l, plan, nil, opt)
}

// CreateDir begins the files of plan in the folder dir, which exists; see
// [LayoutOfDir].
func CreateDir(dir string, plan *format.Plan, metadata map[string]string, opt WriteOptions) (*Writer, error) {
	l, err := LayoutOfDir(dir, plan, metadata, opt)
	if err != nil {
		return nil, err
	}
	var extras []shardfile.Extra
	if l.Index != nil {
		extras = []shardfile.Extra{{Path: filepath.Join(dir, indexName), Data: l.Index}}
	}
	return create(l, plan, extras, opt)
}

func create(l *Layout, plan *format.Plan, extras []shardfile.Extra, opt WriteOptions) (*Writer, error) {
	tensors := make([]shardfile.Tensor, len(plan.Outputs))
	for i, o := range plan.Outputs {
		tensors[i] = shardfile.Tensor{Name: o.Name, Size: o.Size()}
	}
	w, err := shardfile.Create(l.Shards, tensors, extras, opt.Force)
	if err != nil {
		return nil, err
	}
	return &Writer{Writer: w, layout: l}, nil
}

// Layout is where everything goes.
func (w *Writer) Layout() *Layout { return w.layout }
