package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"unicode/utf8"

	"github.com/graft-lora/graft/format"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	pqformat "github.com/parquet-go/parquet-go/format"
)

const parquetMagic = "PAR1"

// parquetRows is how many rows are held at a time.
const parquetRows = 64

// isParquet says whether the file at path is one of Parquet's, which its first bytes say.
func isParquet(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var b [len(parquetMagic)]byte
	if _, err := io.ReadFull(f, b[:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, err
	}
	return string(b[:]) == parquetMagic, nil
}

// parquetRecords gives the rows of a Parquet file as the JSON objects that they would be
// in a JSONL file: lists as arrays, structs and maps as objects. A field that is null is
// left out, at any depth, since a schema gives every record the fields of all others.
// The line of a record is the number of its row, from 1.
func parquetRecords(path string, yield func(raw, error) bool) {
	bad := func(row int64, err error) error {
		return &format.CorruptError{Path: path, Field: fmt.Sprintf("Parquet, row %d", row), Err: err}
	}
	var row int64
	consumer := false // whether a panic would be that of the consumer
	defer func() {
		if p := recover(); p != nil {
			if consumer {
				panic(p)
			}
			debug.FreeOSMemory() // what a damaged size made the library ask for
			yield(raw{line: int(row)}, bad(row+1, fmt.Errorf("%v", p)))
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		yield(raw{}, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		yield(raw{}, err)
		return
	}
	p, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		yield(raw{}, &format.CorruptError{Path: path, Field: "Parquet footer", Err: err})
		return
	}
	fields := p.Schema().Fields()
	leaves := len(p.Schema().Columns())
	buf := make([]parquet.Row, parquetRows)
	for _, g := range p.RowGroups() {
		rows := g.Rows()
		for {
			n, err := rows.ReadRows(buf)
			for _, r := range buf[:n] {
				row++
				rec := raw{line: int(row), fields: map[string]json.RawMessage{}}
				values := make([][]parquet.Value, leaves)
				for _, v := range r {
					values[v.Column()] = append(values[v.Column()], v)
				}
				at := 0
				for _, field := range fields {
					n := leavesOf(field)
					if b := appendNode(nil, field, values[at:at+n], 0, 0); b != nil {
						rec.fields[field.Name()] = b
					}
					at += n
				}
				consumer = true
				more := yield(rec, nil)
				consumer = false
				if !more {
					rows.Close()
					return
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil && n == 0 {
				err = errors.New("the reader makes no progress")
			}
			if err != nil {
				rows.Close()
				yield(raw{}, bad(row+1, err))
				return
			}
		}
		rows.Close()
	}
}

// leavesOf is the number of columns under a node.
func leavesOf(n parquet.Node) int {
	if n.Leaf() {
		return 1
	}
	sum := 0
	for _, f := range n.Fields() {
		sum += leavesOf(f)
	}
	return sum
}

// appendNode appends the value of a node as JSON, or returns nil where it is null.
// columns are the values of its leaves, those of one record or of one element of the
// lists that the node stands in, and rep and def the levels of what it stands in.
func appendNode(b []byte, n parquet.Node, columns [][]parquet.Value, rep, def int) []byte {
	switch {
	case n.Repeated():
		return appendList(b, n, columns, rep, def, func(b []byte, c [][]parquet.Value) []byte {
			return appendValue(b, n, c, rep+1, def+1)
		})
	case n.Optional():
		def++
		if defined(columns) < def {
			return nil
		}
	}
	return appendValue(b, n, columns, rep, def)
}

// defined is how far the values of a node are defined.
func defined(columns [][]parquet.Value) int {
	d := 0
	for _, c := range columns {
		if len(c) > 0 {
			d = max(d, c[0].DefinitionLevel())
		}
	}
	return d
}

// appendList appends an array of what each makes of the elements of a repeated node.
func appendList(b []byte, n parquet.Node, columns [][]parquet.Value, rep, def int, each func([]byte, [][]parquet.Value) []byte) []byte {
	b = append(b, '[')
	if defined(columns) > def {
		rest := make([][]parquet.Value, len(columns))
		copy(rest, columns)
		for first := true; len(rest) > 0 && len(rest[0]) > 0; first = false {
			element := make([][]parquet.Value, len(rest))
			for i, c := range rest {
				k := min(1, len(c))
				for k < len(c) && c[k].RepetitionLevel() > rep+1 {
					k++
				}
				element[i], rest[i] = c[:k], c[k:]
			}
			if !first {
				b = append(b, ',')
			}
			if with := each(b, element); with != nil {
				b = with
			} else {
				b = append(b, "null"...)
			}
		}
	}
	return append(b, ']')
}

// appendValue appends the value of a node that is there: its own repetition and
// optionality are counted in rep and def.
func appendValue(b []byte, n parquet.Node, columns [][]parquet.Value, rep, def int) []byte {
	if n.Leaf() {
		if len(columns) == 0 || len(columns[0]) == 0 {
			return nil
		}
		return appendLeaf(b, n, columns[0][0])
	}
	fields := n.Fields()
	if kind := annotation(n); kind != "" && len(fields) == 1 && fields[0].Repeated() {
		inner := fields[0]
		switch {
		case kind == "LIST" && !inner.Leaf() && len(inner.Fields()) == 1 && inner.Name() != "array" && inner.Name() != "_tuple":
			// A list of three levels: the element is the only field of the repeated group.
			return appendList(b, inner, columns, rep, def, func(b []byte, c [][]parquet.Value) []byte {
				return appendNode(b, inner.Fields()[0], c, rep+1, def+1)
			})
		case kind == "LIST":
			return appendNode(b, inner, columns, rep, def)
		case kind == "MAP" && len(inner.Fields()) == 2 && inner.Fields()[0].Leaf():
			return appendMap(b, inner, columns, rep, def)
		}
	}
	b = append(b, '{')
	at, first := 0, true
	for _, f := range fields {
		n := leavesOf(f)
		was := len(b)
		if !first {
			b = append(b, ',')
		}
		b = append(appendString(b, f.Name()), ':')
		if with := appendNode(b, f, columns[at:at+n], rep, def); with != nil {
			b, first = with, false
		} else {
			b = b[:was]
		}
		at += n
	}
	return append(b, '}')
}

// annotation is what a node's type says of its meaning, where that matters here: LIST,
// MAP, JSON or UINT. Old files say it in their own way.
func annotation(n parquet.Node) string {
	if t := n.Type().LogicalType(); t != nil {
		switch v := t.Value.(type) {
		case *pqformat.ListType:
			return "LIST"
		case *pqformat.MapType:
			return "MAP"
		case *pqformat.JsonType:
			return "JSON"
		case *pqformat.IntType:
			if !v.IsSigned {
				return "UINT"
			}
		}
	}
	if c := n.Type().ConvertedType(); c != nil {
		switch *c {
		case deprecated.List:
			return "LIST"
		case deprecated.Map, deprecated.MapKeyValue:
			return "MAP"
		case deprecated.Json:
			return "JSON"
		case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
			return "UINT"
		}
	}
	return ""
}

// appendMap appends a map as an object; its keys are written as text.
func appendMap(b []byte, inner parquet.Node, columns [][]parquet.Value, rep, def int) []byte {
	value := inner.Fields()[1]
	list := appendList(nil, inner, columns, rep, def, func(b []byte, c [][]parquet.Value) []byte {
		key := appendNode(nil, inner.Fields()[0], c[:1], rep+1, def+1)
		if len(key) == 0 || key[0] != '"' {
			key = appendString(nil, string(key))
		}
		b = append(append(b, key...), ':')
		if with := appendNode(b, value, c[1:], rep+1, def+1); with != nil {
			return with
		}
		return append(b, "null"...)
	})
	list[0], list[len(list)-1] = '{', '}'
	return append(b, list...)
}

func appendLeaf(b []byte, n parquet.Node, v parquet.Value) []byte {
	if v.IsNull() {
		return nil
	}
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.AppendBool(b, v.Boolean())
	case parquet.Int32, parquet.Int64:
		if annotation(n) == "UINT" {
			if v.Kind() == parquet.Int32 {
				return strconv.AppendUint(b, uint64(v.Uint32()), 10)
			}
			return strconv.AppendUint(b, v.Uint64(), 10)
		}
		if v.Kind() == parquet.Int32 {
			return strconv.AppendInt(b, int64(v.Int32()), 10)
		}
		return strconv.AppendInt(b, v.Int64(), 10)
	case parquet.Float, parquet.Double:
		x := float64(v.Float())
		if v.Kind() == parquet.Double {
			x = v.Double()
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
		return strconv.AppendFloat(b, x, 'g', -1, 64)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		text := v.ByteArray()
		switch {
		case annotation(n) == "JSON" && json.Valid(text):
			return append(b, text...)
		case utf8.Valid(text):
			return appendString(b, string(text))
		}
	}
	// Images, decimals and the like: something that no field of text can be.
	return append(b, `{"binary":true}`...)
}

func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return append(b, text...)
}
