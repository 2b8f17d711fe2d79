package gguf

import (
	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/internal/shardfile"
)

// Writer writes the tensors of a plan to one or several files. It is a
// [format.Sink]. The files get their names when Close has found all of them
// complete and has synced them; the first shard, without which nothing can be
// loaded, gets its name last. Abort removes what was written; it does nothing
// after Close, so that it can be deferred.
type Writer struct {
	*shardfile.Writer
	layout *Layout
}

// Create begins the files of plan under path, with the metadata meta; see
// [LayoutOf]. It fails if one of them exists and opt does not say Force.
func Create(path string, meta *Meta, plan *format.Plan, opt WriteOptions) (*Writer, error) {
	l, err := LayoutOf(path, meta, plan, opt)
	if err != nil {
		return nil, err
	}
	tensors := make([]shardfile.Tensor, len(plan.Outputs))
	for i, o := range plan.Outputs {
		tensors[i] = shardfile.Tensor{Name: o.Name, Size: o.Size()}
	}
	w, err := shardfile.Create(l.Shards, tensors, nil, opt.Force)
	if err != nil {
		return nil, err
	}
	return &Writer{Writer: w, layout: l}, nil
}

// Layout is where everything goes.
func (w *Writer) Layout() *Layout { return w.layout }
