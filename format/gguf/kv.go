package gguf

import (
	"fmt"
	"math"
	"slices"
)

// ValueType is the type of a metadata value, with the ids of the format.
type ValueType uint32

// The value types of GGUF.
const (
	Uint8   ValueType = 0
	Int8    ValueType = 1
	Uint16  ValueType = 2
	Int16   ValueType = 3
	Uint32  ValueType = 4
	Int32   ValueType = 5
	Float32 ValueType = 6
	Bool    ValueType = 7
	String  ValueType = 8
	Array   ValueType = 9
	Uint64  ValueType = 10
	Int64   ValueType = 11
	Float64 ValueType = 12
)

var valueTypeNames = [...]string{"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"}

func (t ValueType) String() string {
	if int(t) < len(valueTypeNames) {
		return valueTypeNames[t]
	}
	return fmt.Sprintf("value type %d", uint32(t))
}

// Value is the value of a metadata key. Its Go type says its GGUF type: uint8,
// int8, uint16, int16, uint32, int32, float32, bool, string, uint64, int64,
// float64, and slices of these for arrays; [][]T does not exist, nested arrays
// are refused by the reader.
type Value any

// TypeOf gives the type of v, and for an array the type of its elements. ok is
// false if v's Go type is none of those that Value lists.
func TypeOf(v Value) (t, elem ValueType, ok bool) {
	switch v.(type) {
	case uint8:
		return Uint8, 0, true
	case int8:
		return Int8, 0, true
	case uint16:
		return Uint16, 0, true
	case int16:
		return Int16, 0, true
	case uint32:
		return Uint32, 0, true
	case int32:
		return Int32, 0, true
	case float32:
		return Float32, 0, true
	case bool:
		return Bool, 0, true
	case string:
		return String, 0, true
	case uint64:
		return Uint64, 0, true
	case int64:
		return Int64, 0, true
	case float64:
		return Float64, 0, true
	case []uint8:
		return Array, Uint8, true
	case []int8:
		return Array, Int8, true
	case []uint16:
		return Array, Uint16, true
	case []int16:
		return Array, Int16, true
	case []uint32:
		return Array, Uint32, true
	case []int32:
		return Array, Int32, true
	case []float32:
		return Array, Float32, true
	case []bool:
		return Array, Bool, true
	case []string:
		return Array, String, true
	case []uint64:
		return Array, Uint64, true
	case []int64:
		return Array, Int64, true
	case []float64:
		return Array, Float64, true
	}
	return 0, 0, false
}

// KV is a metadata key with its value.
type KV struct {
	Key   string
	Value Value
}

// Meta is the metadata of a file, in file order. The zero value is empty and
// ready to use. It is not safe for concurrent use while it is changed.
type Meta struct {
	kvs   []KV
	index map[string]int
}

// Len is the number of keys.
func (m *Meta) Len() int { return len(m.kvs) }

// All returns the keys and values in order. The slice must not be changed.
func (m *Meta) All() []KV { return m.kvs }

// Get returns the value of key.
func (m *Meta) Get(key string) (Value, bool) {
	i, ok := m.index[key]
	if !ok {
		return nil, false
	}
	return m.kvs[i].Value, true
}

// Has says whether key is present.
func (m *Meta) Has(key string) bool { _, ok := m.index[key]; return ok }

// Set replaces the value of key in place, or appends the key. It panics if v is
// no [Value].
func (m *Meta) Set(key string, v Value) {
	if _, _, ok := TypeOf(v); !ok {
		panic(fmt.Sprintf("gguf: metadata %s: a %T cannot be stored", key, v))
	}
	if i, ok := m.index[key]; ok {
		m.kvs[i].Value = v
		return
	}
	if m.index == nil {
		m.index = map[string]int{}
	}
	m.index[key] = len(m.kvs)
	m.kvs = append(m.kvs, KV{key, v})
}

// Delete removes key if it is present.
func (m *Meta) Delete(key string) {
	i, ok := m.index[key]
	if !ok {
		return
	}
	m.kvs = slices.Delete(m.kvs, i, i+1)
	delete(m.index, key)
	for j := i; j < len(m.kvs); j++ {
		m.index[m.kvs[j].Key] = j
	}
}

// Clone returns a copy of m that can be changed. Arrays are shared.
func (m *Meta) Clone() *Meta {
	c := &Meta{}
	for _, kv := range m.kvs {
		c.Set(kv.Key, kv.Value)
	}
	return c
}

// Str returns a string; ok is false if the key is absent or not a string.
func (m *Meta) Str(key string) (s string, ok bool) {
	v, _ := m.Get(key)
	s, ok = v.(string)
	return s, ok
}

// Bool returns a bool; ok is false if the key is absent or not a bool.
func (m *Meta) Bool(key string) (b, ok bool) {
	v, _ := m.Get(key)
	b, ok = v.(bool)
	return b, ok
}

// Int returns an integer of any width; ok is false if the key is absent, no
// integer, or too large for an int64.
func (m *Meta) Int(key string) (n int64, ok bool) {
	v, _ := m.Get(key)
	switch v := v.(type) {
	case uint8:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	}
	return 0, false
}

// Float returns a float of either width, or an integer as a float; ok is false
// if the key is absent or no number.
func (m *Meta) Float(key string) (f float64, ok bool) {
	v, _ := m.Get(key)
	switch v := v.(type) {
	case float32:
		return float64(v), true
	case float64:
		return v, true
	}
	n, ok := m.Int(key)
	return float64(n), ok
}

// Strs returns an array of strings; ok is false if the key is absent or another type.
func (m *Meta) Strs(key string) (s []string, ok bool) {
	v, _ := m.Get(key)
	s, ok = v.([]string)
	return s, ok
}

// Ints returns an array of integers of any width as int64; ok is false if the key
// is absent or holds something else.
func (m *Meta) Ints(key string) (n []int64, ok bool) {
	v, _ := m.Get(key)
	switch v := v.(type) {
	case []uint8:
		return widen(v), true
	case []int8:
		return widen(v), true
	case []uint16:
		return widen(v), true
	case []int16:
		return widen(v), true
	case []uint32:
		return widen(v), true
	case []int32:
		return widen(v), true
	case []int64:
		return v, true
	}
	return nil, false
}

// Floats returns an array of floats of either width as float64; ok is false if
// the key is absent or holds something else.
func (m *Meta) Floats(key string) (f []float64, ok bool) {
	v, _ := m.Get(key)
	switch v := v.(type) {
	case []float32:
		f = make([]float64, len(v))
		for i, x := range v {
			f[i] = float64(x)
		}
		return f, true
	case []float64:
		return v, true
	}
	return nil, false
}

func widen[T uint8 | int8 | uint16 | int16 | uint32 | int32](v []T) []int64 {
	n := make([]int64, len(v))
	for i, x := range v {
		n[i] = int64(x)
	}
	return n
}
