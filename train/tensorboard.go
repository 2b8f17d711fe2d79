package train

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the checksum of TFRecord files.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// appendRecord appends a record of a TFRecord file: length, its checksum, data, its checksum.
func appendRecord(b, data []byte) []byte {
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b = append(b, length...)
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(length))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, maskedCRC(data))
}

// appendBytes appends a field of a protocol buffer that has a length.
func appendBytes(b []byte, field int, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// event is an Event message without its content: wall_time is field 1, step field 2.
func event(at float64, step int) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(at))
	return binary.AppendUvarint(append(b, 2<<3), uint64(step))
}

// Events writes a log as a TensorBoard event file: train/… of steps, eval/… of
// evaluations. begin is when the first process of the run began, as far as is known.
func Events(lines []LogLine, begin time.Time) []byte {
	at := float64(begin.UnixNano()) / 1e9
	out := appendRecord(nil, appendBytes(event(at, 0), 3, []byte("brain.Event:2")))
	last := 0.0
	for _, l := range lines {
		if l.Timing != nil { // which begins again when a run is resumed
			last = max(last, l.Timing.Seconds)
		}
		values := map[string]float64{}
		prefix, p := "train/", l.Preferences
		if l.Eval != nil {
			prefix, p = "eval/", l.Eval.Preferences
			values["loss"] = l.Eval.Loss
			if d := l.Eval.Distill; d != nil {
				values["teacher_kl"], values["cross_entropy"] = d.KL, d.CrossEntropy
			}
		} else if l.isStep() {
			values["loss"], values["grad_norm"], values["epoch"] = l.Loss, l.GradNorm, l.Epoch
			if l.LR != nil {
				values["lr"] = *l.LR
			}
			if d := l.Distill; d != nil {
				values["teacher_kl"], values["cross_entropy"] = d.KL, d.CrossEntropy
			}
			if l.Router != 0 {
				values["router_loss"] = l.Router
			}
			if l.Timing != nil {
				values["tokens_per_second"] = l.Timing.TokensPerSecond
			}
		}
		if p != nil {
			values["accuracy"], values["reward_chosen"], values["reward_rejected"] = p.Accuracy, p.Chosen, p.Rejected
		}
		var tags []string
		for tag := range values {
			tags = append(tags, tag)
		}
		slices.Sort(tags)
		var summary []byte
		for _, tag := range tags {
			v := appendBytes(nil, 1, []byte(prefix+tag))
			v = binary.LittleEndian.AppendUint32(append(v, 2<<3|5), math.Float32bits(float32(values[tag])))
			summary = appendBytes(summary, 1, v)
		}
		out = appendRecord(out, appendBytes(event(at+last, l.Step), 5, summary))
	}
	return out
}
