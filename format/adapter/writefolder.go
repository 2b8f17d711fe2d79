package adapter

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/format"
	"github.com/graft-lora/graft/format/checkpoint"
	"github.com/graft-lora/graft/format/safetensors"
	"github.com/graft-lora/graft/internal/atomicfile"
)

// writeFolder writes the two files of an adapter folder: weights, and
// adapter_config.json. The folder appears whole; with opt.Into each of the files does.
func writeFolder(dir, weights string, plan *format.Plan, metadata map[string]string, config []byte, opt WriteOptions) error {
	metadata["format"] = "pt"
	order := safetensors.WriteOptions{Force: opt.Force, MetadataKeys: []string{"format"}}
	if opt.Into {
		w, err := safetensors.Create(filepath.Join(dir, weights), plan, metadata, order)
		if err != nil {
			return err
		}
		if err := carry(plan, w); err != nil {
			return err
		}
		for _, f := range opt.Beside {
			if err := atomicfile.WriteFile(filepath.Join(dir, f.Name), f.Data, opt.Force); err != nil {
				return err
			}
		}
		return atomicfile.WriteFile(filepath.Join(dir, checkpoint.AdapterConfigName), config, opt.Force)
	}
	d, err := atomicfile.CreateDir(dir, opt.Force)
	if err != nil {
		return err
	}
	defer d.Abort()
	w, err := safetensors.Create(d.Join(weights), plan, metadata, order)
	if err != nil {
		return err
	}
	if err := carry(plan, w); err != nil {
		return err
	}
	for _, f := range append([]File{{checkpoint.AdapterConfigName, config}}, opt.Beside...) {
		if err := d.WriteFile(f.Name, f.Data); err != nil {
			return err
		}
	}
	return d.Commit()
}

// layerOf finds the number of the layer in a module's name.
func layerOf(module string) (n int, ok bool) {
	for part := range strings.SplitSeq(module, ".") {
		if n, err := strconv.Atoi(part); err == nil {
			return n, true
		}
	}
	return 0, false
}

// inLayer is a module's name inside its layer.
func inLayer(module string) string {
	parts := strings.Split(module, ".")
	for i, part := range parts {
		if _, err := strconv.Atoi(part); err == nil && i+1 < len(parts) {
			return strings.Join(parts[i+1:], ".")
		}
	}
	return module
}

// mlxConfig makes adapter_config.json of mlx-lm. layers counts from the last one of the
// model; more than the adapter has do no harm, they stay as they are.
func mlxConfig(kind string, layers, rank int, scale float32, dropout float64, keys map[string]bool) ([]byte, error) {
	c := map[string]any{"fine_tune_type": kind, "num_layers": layers, "lora_parameters": map[string]any{
		"rank": rank, "scale": scale, "dropout": dropout, "keys": slices.Sorted(maps.Keys(keys)),
	}}
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}
