package convert

import (
	"encoding/json"
	"fmt"

	"github.com/graft-lora/graft/format/checkpoint"
)

// SetQuantization makes v the quantization_config of the folder's config.json: what
// whoever has replaced tensors of the plan by quantized ones says of them.
func (f *HFFolder) SetQuantization(v any) error {
	for i, file := range f.Files {
		if file.Name != checkpoint.ConfigName {
			continue
		}
		var config map[string]json.RawMessage
		if err := json.Unmarshal(file.Data, &config); err != nil {
			return fmt.Errorf("convert: %s: %w", checkpoint.ConfigName, err)
		}
		part, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("convert: %w", err)
		}
		config["quantization_config"] = part
		f.Files[i].Data, err = encodeJSON(config)
		return err
	}
	return fmt.Errorf("convert: the folder has no %s", checkpoint.ConfigName)
}
