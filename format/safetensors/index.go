package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
)

// The names in a folder.
const (
	singleName = "model.safetensors"
	indexName  = "model.safetensors.index.json"
)

// maxIndex is the largest index that is read, in bytes.
const maxIndex = maxHeader

// OpenDir opens the tensors of a folder: model.safetensors if it is there, else
// the files that model.safetensors.index.json names.
func OpenDir(dir string) (*File, error) {
	single := filepath.Join(dir, singleName)
	if _, err := os.Stat(single); err == nil {
		return Open(single)
	}
	index := filepath.Join(dir, indexName)
	if _, err := os.Stat(index); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: neither %s nor %s is there: %w", dir, singleName, indexName, fs.ErrNotExist)
	}
	return OpenIndex(index)
}

// OpenIndex opens the files that the index at path names, in ascending order of
// their names. The index and the files must agree: every tensor of the index is in
// the file it names, and the files hold no other. Its total_size is not compared,
// since writers disagree about what it counts.
func OpenIndex(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxIndex {
		return nil, &format.CorruptError{Path: path, Offset: -1, Field: "index", Err: fmt.Errorf("%d bytes exceed %d", st.Size(), maxIndex)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	where, err := parseIndex(path, data)
	if err != nil {
		return nil, err
	}
	f, err := openShards(path, where)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(where)) {
		if f.Tensor(name) == nil {
			f.Close()
			return nil, &format.CorruptError{Path: path, Offset: -1, Field: "tensor " + name,
				Err: fmt.Errorf("is not in %s", where[name])}
		}
	}
	return f, nil
}

func openShards(path string, where map[string]string) (*File, error) {
	names := slices.Sorted(maps.Values(where))
	all := &File{index: map[string]int{}}
	for i, name := range slices.Compact(names) {
		shard, err := Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			all.Close()
			return nil, err
		}
		all.closers = append(all.closers, shard)
		if i == 0 {
			all.Metadata, all.MetadataKeys = shard.Metadata, shard.MetadataKeys
		}
		for _, t := range shard.Tensors {
			if in, ok := where[t.Name]; !ok || in != name {
				all.Close()
				return nil, &format.CorruptError{Path: path, Offset: -1, Field: "tensor " + t.Name,
					Err: fmt.Errorf("is in %s, the index says %q", name, in)}
			}
			all.index[t.Name] = len(all.Tensors)
			all.Tensors = append(all.Tensors, t)
		}
		all.Shards = append(all.Shards, shard.Shards...)
	}
	return all, nil
}

// appendIndex writes the index as Python's json.dumps with an indent of 2 and
// sorted keys does.
func appendIndex(b []byte, total int64, where map[string]string) []byte {
	b = fmt.Appendf(b, "{\n  \"metadata\": {\n    \"total_size\": %d\n  },\n  \"weight_map\": {", total)
	for i, name := range slices.Sorted(maps.Keys(where)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    "...)
		b = appendJSON(b, name)
		b = append(b, ": "...)
		b = appendJSON(b, where[name])
	}
	return append(b, "\n  }\n}\n"...)
}

// parseIndex reads an index: which file each tensor is in.
func parseIndex(path string, data []byte) (map[string]string, error) {
	corrupt := func(at int, err error) error {
		return &format.CorruptError{Path: path, Offset: int64(at), Field: "index", Err: err}
	}
	if !utf8.Valid(data) {
		return nil, corrupt(0, errors.New("is not UTF-8"))
	}
	var where map[string]string
	s := &scanner{p: data}
	s.object(func(name string, at int) {
		if name != "weight_map" {
			s.skip()
			return
		}
		if where != nil {
			s.failf(at, "weight_map stands there twice")
			return
		}
		where = map[string]string{}
		s.object(func(tensor string, at int) {
			s.peek()
			file := s.str()
			if _, twice := where[tensor]; twice {
				s.failf(at, "tensor %q stands there twice", tensor)
			}
			if s.err == nil && (!filepath.IsLocal(file) || filepath.Base(file) != file) {
				s.failf(at, "tensor %q is said to be in %q, which is no name of a file in the folder", tensor, file)
			}
			where[tensor] = file
		})
	})
	s.end()
	if s.err == nil && where == nil {
		s.failf(0, "weight_map is missing")
	}
	if s.err != nil {
		return nil, corrupt(s.errAt, s.err)
	}
	return where, nil
}
