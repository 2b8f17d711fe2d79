package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"strconv"

	"github.com/graft-lora/graft/format"
)

// The keys that a shard of a split model has.
const (
	keySplitNo      = "split.no"            // u16, from 0
	keySplitCount   = "split.count"         // u16
	keySplitTensors = "split.tensors.count" // i32, of all shards
)

// ShardPath is the name of shard no (from 0) of count, for a model called prefix.
func ShardPath(prefix string, no, count int) string {
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, no+1, count)
}

var shardName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// ParseShardPath is the reverse of [ShardPath].
func ParseShardPath(path string) (prefix string, no, count int, ok bool) {
	m := shardName.FindStringSubmatch(path)
	if m == nil {
		return "", 0, 0, false
	}
	no, _ = strconv.Atoi(m[2])
	count, _ = strconv.Atoi(m[3])
	return m[1], no - 1, count, no >= 1 && no <= count
}

// split is what a shard says about the model it belongs to.
type split struct{ no, count, tensors int64 }

// splitOf reads the split keys of a file; a file that is no shard has count 0.
func splitOf(f *File) (split, error) {
	var s split
	for key, p := range map[string]*int64{keySplitNo: &s.no, keySplitCount: &s.count, keySplitTensors: &s.tensors} {
		v, has := f.Meta.Get(key)
		n, ok := f.Meta.Int(key)
		if has && (!ok || n < 0) {
			return s, &format.CorruptError{Path: f.Shards[0].Path, Offset: -1, Field: "metadata " + key, Err: fmt.Errorf("%v is no count", v)}
		}
		*p = n
	}
	if s.count > math.MaxUint16 || s.count > 0 && s.no >= s.count {
		return s, &format.CorruptError{Path: f.Shards[0].Path, Offset: -1, Field: "metadata " + keySplitNo,
			Err: fmt.Errorf("shard %d of %d", s.no, s.count)}
	}
	return s, nil
}

// openSplit opens all shards of the model that the file at path is a shard of.
func openSplit(path string, s split) (*File, error) {
	prefix, no, count, ok := ParseShardPath(path)
	if !ok || int64(no) != s.no || int64(count) != s.count {
		return nil, fmt.Errorf("%s: the file says it is shard %d of %d, so its name should end in %s", path, s.no+1, s.count,
			ShardPath("", int(s.no), int(s.count)))
	}
	all := &File{index: map[string]int{}}
	for i := range count {
		if err := all.addShard(ShardPath(prefix, i, count), split{int64(i), s.count, s.tensors}); err != nil {
			all.Close()
			return nil, err
		}
	}
	if int64(len(all.Tensors)) != s.tensors {
		all.Close()
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "metadata " + keySplitTensors,
			Err: fmt.Errorf("%d, but the %d shards hold %d tensors", s.tensors, count, len(all.Tensors))}
	}
	all.dropSplitKeys()
	return all, nil
}

// addShard appends the shard at path, which must say of itself what want says.
func (f *File) addShard(path string, want split) error {
	shard, err := OpenShard(path)
	if err != nil {
		return err
	}
	f.closers = append(f.closers, shard)
	s, err := splitOf(shard)
	if err != nil {
		return err
	}
	corrupt := func(field, msg string, args ...any) error {
		return &format.CorruptError{Path: path, Offset: -1, Field: field, Err: fmt.Errorf(msg, args...)}
	}
	if s != want {
		return corrupt("split keys", "shard %d of %d with %d tensors in all, where shard %d of %d with %d is wanted",
			s.no+1, s.count, s.tensors, want.no+1, want.count, want.tensors)
	}
	if want.no == 0 {
		f.Meta, f.Version, f.ByteOrder, f.Alignment = shard.Meta, shard.Version, shard.ByteOrder, shard.Alignment
	} else if (shard.ByteOrder == binary.BigEndian) != (f.ByteOrder == binary.BigEndian) {
		return corrupt("version", "another byte order than the first shard")
	}
	for _, t := range shard.Tensors {
		if f.Tensor(t.Name) != nil {
			return corrupt("tensor "+t.Name, "stands in two shards")
		}
		f.index[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
	}
	f.Shards = append(f.Shards, shard.Shards...)
	return nil
}
