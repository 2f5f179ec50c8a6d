package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/static"
	"tollgate/views"
	"tollgate/views/ui"
)

// asset serves an embedded file. Its address contains its checksum, so clients may cache it for a
// year.
func (s *Server) asset(c echo.Context) error {
	content, contentType, ok := static.Open(c.Request().URL.Path)
	if !ok {
		return echo.ErrNotFound
	}
	c.Response().Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	c.Response().Header().Set("X-Content-Type-Options", "nosniff")
	return c.Blob(http.StatusOK, contentType, content)
}

// docs is the page of the API. It is the same for everyone, so it is rendered once.
func (s *Server) docs(c echo.Context, _ *models.Viewer) error {
	sendPage(c, http.StatusOK, PagePolicy, s.docsPage)
	return nil
}

func (s *Server) drawDocs(schemas huma.Registry) error {
	page := s.describe(schemas)
	page.Frame = ui.Frame{Now: models.Now(s.now)}
	var b bytes.Buffer
	if err := views.DocsPage(page).Render(context.Background(), &b); err != nil {
		return fmt.Errorf("draw the page of the API: %w", err)
	}
	s.docsPage = b.Bytes()
	return nil
}

// describe builds the page's content from the routes and the schemas of their types.
func (s *Server) describe(schemas huma.Registry) views.Docs {
	d := views.Docs{Unit: s.catalogue.UnitSingular}
	for _, r := range s.api() {
		o := views.DocsOperation{
			ID: r.id, Method: r.method, Path: r.path, Scope: string(r.scope), Summary: r.summary,
			Description: strings.ReplaceAll(r.description, "`", ""),
			Example:     s.example(&r), Response: fieldsOf(schemas, "", r.response),
		}
		for _, q := range r.query {
			f := views.DocsField{Name: "?" + q.name, Type: "string", Description: strings.ReplaceAll(q.description, "`", "")}
			if q.most != 0 {
				f.Type, f.Description = fmt.Sprintf("integer, %d to %d", q.least, q.most), fmt.Sprintf("%s Default: %d.", f.Description, q.normal)
			}
			o.Request = append(o.Request, f)
		}
		if r.request != nil {
			o.Request = append(o.Request, fieldsOf(schemas, "", r.request)...)
		}
		d.Operations = append(d.Operations, o)
	}
	for code, p := range problems {
		if p.meaning == "" {
			continue
		}
		d.Errors = append(d.Errors, views.DocsError{Code: string(code), Meaning: p.meaning, Status: strconv.Itoa(p.status)})
	}
	slices.SortFunc(d.Errors, func(a, b views.DocsError) int { return strings.Compare(a.Status+a.Code, b.Status+b.Code) })
	return d
}

// exampleBodies are valid request bodies, by the operation's ID.
var exampleBodies = map[string]string{
	"check":   `{"email": "ada@example.com"}`,
	"consume": `{"email": "ada@example.com", "idempotency_key": "message-1"}`,
	"hold":    `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "work-1"}`,
	"settle":  `{"quantity": 2}`,
	"events": `{"events": [{"email": "ada@example.com", "quantity": 1, "idempotency_key": "message-2",` +
		` "occurred_at": "2026-11-23T09:30:00Z"}]}`,
	"changeOrganization": `{"spend_limit_cents": 10000}`,
	"changeUser":         `{"role": "admin"}`,
	"void":               `{"email": "ada@example.com", "idempotency_key": "message-1", "reason": "sent twice"}`,
	"grant":              `{"email": "ada@example.com", "quantity": 10, "reason": "outage", "idempotency_key": "grant-1"}`,
}

func (s *Server) example(r *route) string {
	var b strings.Builder
	b.WriteString("curl " + s.baseURL + r.path)
	if r.method == http.MethodPatch {
		b.WriteString(" -X PATCH")
	}
	if r.scope != "" {
		b.WriteString(` \` + "\n  -H 'Authorization: Bearer tg_live_…'")
	}
	if body, ok := exampleBodies[r.id]; ok {
		b.WriteString(` -H 'Content-Type: application/json'` + ` \` + "\n  -d '" + body + "'")
	} else if r.method == http.MethodPost {
		b.WriteString(" -X POST")
	}
	return b.String()
}

// fieldsOf lists the fields of a type in order. A parent comes before its own fields.
func fieldsOf(schemas huma.Registry, prefix string, t reflect.Type) []views.DocsField {
	if t.Kind() != reflect.Struct {
		return nil
	}
	s := resolve(schemas, schemas.Schema(t, true, ""))
	var fields []views.DocsField
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		p, ok := s.Properties[name]
		if !ok {
			continue
		}
		path := prefix + name
		fields = append(fields, views.DocsField{
			Name: path, Type: describeType(schemas, p), Description: p.Description, Required: slices.Contains(s.Required, name),
		})
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			if inner.Kind() == reflect.Slice {
				path += "[]"
			}
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			fields = append(fields, fieldsOf(schemas, path+".", inner)...)
		}
	}
	return fields
}

func resolve(schemas huma.Registry, s *huma.Schema) *huma.Schema {
	for s.Ref != "" {
		s = schemas.SchemaFromRef(s.Ref)
	}
	return s
}

// describeType returns a field's type in words.
func describeType(schemas huma.Registry, p *huma.Schema) string {
	orNull := p.Nullable
	if len(p.OneOf) > 0 {
		p, orNull = p.OneOf[0], true
	}
	p = resolve(schemas, p)
	kind := p.Type
	if p.Format != "" && p.Format != "int64" {
		kind = p.Format
	}
	if len(p.Enum) > 0 {
		var words []string
		for _, word := range p.Enum {
			if word != nil {
				words = append(words, fmt.Sprint(word))
			}
		}
		kind = strings.Join(words, ", ")
	}
	if p.Minimum != nil && p.Maximum != nil {
		kind += fmt.Sprintf(", %.0f to %.0f", *p.Minimum, *p.Maximum)
	}
	if orNull {
		kind += " or null"
	}
	return kind
}
