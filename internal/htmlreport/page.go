package htmlreport

import (
	"bytes"
	_ "embed"
	"html/template"
	"io"

	"github.com/graft-lora/graft/internal/atomicfile"
)

// Page is a report.
type Page struct {
	Title    string
	Lead     string // a sentence or two below the title
	Facts    []Fact // what the report is about: files, settings, totals
	Sections []Section
	Foot     string // how it was made: a command, a version
}

// Fact is a name and what it is. A value that is Large is shown as one of the page's main
// numbers.
type Fact struct {
	Name, Value string
	Large       bool
}

// Section is a part of a page under a heading.
type Section struct {
	Heading string
	Words   []string // paragraphs before the parts
	Parts   []Part
	Folded  bool // only the heading is seen until the reader opens it
}

// Part is something that a section shows: a [*Table], [*HeatMap], [*Chart] or [Pre].
type Part interface {
	// view names the template of the part and gives what it shows.
	view() (name string, data any)
}

//go:embed page.html
var source string

// page is page.html, which defines the parts' templates beside the page itself.
var page *template.Template

func init() {
	page = template.New("page").Funcs(template.FuncMap{"part": showPart})
	template.Must(page.Parse(source))
}

func showPart(p Part) (template.HTML, error) {
	name, data := p.view()
	var b bytes.Buffer
	err := page.ExecuteTemplate(&b, name, data)
	return template.HTML(b.String()), err // the template has escaped what needs it
}

// Colours are those of lines, to be counted by the page's template.
func (p *Page) Colours() []struct{} { return make([]struct{}, seriesColours) }

// Main are the facts that are large.
func (p *Page) Main() []Fact { return p.facts(true) }

// Rest are the facts that are not.
func (p *Page) Rest() []Fact { return p.facts(false) }

func (p *Page) facts(large bool) []Fact {
	var out []Fact
	for _, f := range p.Facts {
		if f.Large == large {
			out = append(out, f)
		}
	}
	return out
}

// Write writes the page.
func (p *Page) Write(w io.Writer) error { return page.Execute(w, p) }

// WriteFile writes the page to a file, whole or not at all. One that exists is
// fs.ErrExist without force.
func (p *Page) WriteFile(path string, force bool) error {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b.Bytes(), force)
}

// Pre is text as it stands: a sample, a run's settings.
type Pre string

func (p Pre) view() (string, any) { return "pre", string(p) }

// Table is rows under a heading line. A row has a cell for each column.
type Table struct {
	Caption string
	Columns []Column
	Rows    [][]Cell
}

// Column is a column's heading. Numbers stand at the right.
type Column struct {
	Name   string
	Number bool
	Tip    string // what it means, shown on hovering
}

// Cell is a field of a table.
type Cell struct {
	Text   string
	Share  float64 // above 0, at most 1: drawn as a bar under the text
	Strong bool    // the best of its column, or a total
	Faint  bool    // said beside the point
}

func (t *Table) view() (string, any) { return "table", t }

// Class is the cell's style class in column i.
func (t *Table) Class(i int, c Cell) string {
	s := ""
	if i < len(t.Columns) && t.Columns[i].Number {
		s = "n"
	}
	if c.Strong {
		s += " s"
	}
	if c.Faint {
		s += " f"
	}
	return s
}

// Bar is the width of the cell's bar in percent, 0 for none.
func (c Cell) Bar() float64 {
	if !(c.Share > 0) {
		return 0
	}
	return round(100 * min(c.Share, 1))
}

// Texts makes cells of plain texts.
func Texts(s ...string) []Cell {
	row := make([]Cell, len(s))
	for i, t := range s {
		row[i].Text = t
	}
	return row
}
