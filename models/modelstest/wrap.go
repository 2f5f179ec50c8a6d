package modelstest

import (
	"strings"
	"unicode/utf8"
)

// Wrap breaks a paragraph of a generated document into lines of at most 100 characters. The first line
// begins with prefix, and the others with as many spaces.
func Wrap(prefix, paragraph string) string {
	const width = 100
	var text strings.Builder
	column := 0
	for i, word := range strings.Fields(paragraph) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
			text.WriteString(prefix)
			column = len(prefix)
		case column+1+n > width:
			text.WriteString("\n" + strings.Repeat(" ", len(prefix)))
			column = len(prefix)
		default:
			text.WriteString(" ")
			column++
		}
		text.WriteString(word)
		column += n
	}
	return text.String()
}
