package web

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// writeCSV sends a file row by row: times as ISO 8601 in UTC, and no cell that a spreadsheet would take for a formula.
func writeCSV(c echo.Context, name string, rows func(row func(cells ...any))) error {
	PageHeaders(c.Response().Header(), PagePolicy)
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/csv; charset=utf-8")
	h.Set(echo.HeaderContentDisposition, fmt.Sprintf("attachment; filename=%q", name))
	c.Response().WriteHeader(http.StatusOK)
	w := csv.NewWriter(c.Response())
	var record []string
	rows(func(cells ...any) {
		record = record[:0]
		for _, cell := range cells {
			record = append(record, csvCell(cell))
		}
		_ = w.Write(record) // the writer keeps its first error
	})
	w.Flush()
	return w.Error()
}

func csvCell(cell any) string {
	if t, ok := cell.(time.Time); ok {
		return t.UTC().Format(time.RFC3339)
	}
	return harmless(fmt.Sprint(cell))
}

// harmless keeps a text from being a formula: a spreadsheet shows what follows the apostrophe.
// Source: https://owasp.org/www-community/attacks/CSV_Injection
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}
