package web

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/labstack/echo/v4"
)

// byteOrderMark shows Excel that a CSV file is UTF-8. Without it, Excel uses the system's code
// page.
const byteOrderMark = "\ufeff"

// writeCSV sends a file row by row, in the form that Excel opens correctly: UTF-8 with a byte order
// mark and CRLF line endings. Times are written as RFC 3339 in UTC. No text can run as a formula.
func writeCSV(c echo.Context, name string, rows func(row func(cells ...any))) error {
	PageHeaders(c.Response().Header(), PagePolicy)
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/csv; charset=utf-8")
	h.Set(echo.HeaderContentDisposition, fmt.Sprintf("attachment; filename=%q", name))
	c.Response().WriteHeader(http.StatusOK)
	if _, err := io.WriteString(c.Response(), byteOrderMark); err != nil {
		return err
	}
	w := csv.NewWriter(c.Response())
	w.UseCRLF = true
	var record []string
	rows(func(cells ...any) {
		record = record[:0]
		for _, cell := range cells {
			record = append(record, csvCell(cell))
		}
		_ = w.Write(record) // the writer stores its first error
	})
	w.Flush()
	return w.Error()
}

// csvCell formats one value. Numbers come from Tollgate itself and stay numbers, even if they are
// negative.
func csvCell(cell any) string {
	switch v := cell.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case int, int64:
		return fmt.Sprint(v)
	}
	return harmless(fmt.Sprint(cell))
}

const (
	// formulaStarts are the characters that begin a formula, in ASCII and in the full-width and small
	// forms that spreadsheets convert to ASCII.
	formulaStarts = "=+-@＝＋－＠﹦﹢﹣﹫"
	// cellSeparators end a cell in some locale or import dialog.
	cellSeparators = ";,|\t\r\n"
)

// harmless prevents a text from running as a formula. It inserts an apostrophe at each place where
// a spreadsheet may see the start of a cell, if a formula follows: at the start of the text, and
// after each separator, because a spreadsheet may split cells at a separator other than the comma.
// It ignores spaces, quotes and invisible characters before the formula.
// Source: https://owasp.org/www-community/attacks/CSV_Injection
func harmless(s string) string {
	var b strings.Builder
	rest := s
	if strings.IndexAny(s, "\t\r\n") == 0 { // each of these begins a formula
		b.WriteByte('\'')
	}
	for {
		content := strings.TrimLeftFunc(rest, func(r rune) bool {
			return !strings.ContainsRune(cellSeparators, r) &&
				(unicode.IsSpace(r) || unicode.Is(unicode.C, r) || strings.ContainsRune("\"“”„", r))
		})
		if strings.IndexAny(content, formulaStarts) == 0 {
			b.WriteByte('\'')
		}
		i := strings.IndexAny(rest, cellSeparators)
		if i < 0 {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(rest[:i+1])
		rest = rest[i+1:]
	}
}
