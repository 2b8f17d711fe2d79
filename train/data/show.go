package data

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/graft-lora/graft/internal/tokenizer"
)

// ShowMask prints a sample token by token, so that a person sees what is trained:
// with colour, trained tokens green and the others dim; without, trained tokens in
// square brackets. Characters that do not print are escaped.
func ShowMask(w io.Writer, t *tokenizer.Tokenizer, s Sample, colour bool) error {
	var b strings.Builder
	where := s.Path
	if l := s.lineText(); l != "" {
		where += ", " + l
	}
	if where != "" {
		where += ": "
	}
	fmt.Fprintf(&b, "%s%d tokens, %d trained\n", where, len(s.IDs), s.Trained())
	doc := 0
	for i, id := range s.IDs {
		if doc < len(s.Docs) && s.Docs[doc] == i {
			if i > 0 {
				b.WriteString("\n--- next document\n")
			}
			doc++
		}
		piece := t.Piece(id)
		text := strconv.Quote(piece)
		text = strings.ReplaceAll(text[1:len(text)-1], `\"`, `"`)
		switch {
		case colour && s.Train[i]:
			text = "\x1b[32m" + text + "\x1b[0m"
		case colour:
			text = "\x1b[2m" + text + "\x1b[0m"
		case s.Train[i]:
			text = "[" + text + "]"
		}
		b.WriteString(text)
		if strings.HasSuffix(piece, "\n") {
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}
