package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// openAPI builds the document of all routes from their Go types.
func (s *Server) openAPI(schemas huma.Registry) ([]byte, error) {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Tollgate", Version: "1",
			Description: "Usage limits and metering: may this person use more, and what should the app say to them? " +
				"Each use is decided and recorded in one transaction.",
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Servers: []*huma.Server{{URL: s.baseURL}},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"key": {Type: "http", Scheme: "bearer", Description: "An API key: tg_live_…"},
		}},
	}
	problem := schemas.Schema(reflect.TypeFor[Problem](), true, "")
	for _, r := range s.api() {
		op := &huma.Operation{
			OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Description: r.description,
			Responses: map[string]*huma.Response{},
		}
		done := &huma.Response{
			Description: "Done.",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(r.response, true, "")}},
		}
		op.Responses["200"] = done
		if r.scope != "" {
			done.Headers = rateLimitHeader()
		}
		for status, codes := range r.errorCodes() {
			var names []string
			for _, code := range codes {
				names = append(names, "`"+string(code)+"`")
			}
			response := &huma.Response{
				Description: "Code " + strings.Join(names, " or ") + ".",
				Content:     map[string]*huma.MediaType{problemContentType: {Schema: problem}},
			}
			if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
				response.Headers = map[string]*huma.Param{"Retry-After": {
					Description: "Seconds to wait before the next try.", Schema: &huma.Schema{Type: "integer"},
				}}
			}
			if status == http.StatusTooManyRequests {
				maps.Copy(response.Headers, rateLimitHeader())
				maps.Copy(response.Headers, rateLimitedHeaders())
			}
			op.Responses[strconv.Itoa(status)] = response
		}
		if r.scope != "" {
			op.Security = []map[string][]string{{"key": {string(r.scope)}}}
			op.Description += " Needs a key with the scope `" + string(r.scope) + "`."
		} else {
			op.Security = []map[string][]string{}
		}
		if r.request != nil {
			op.RequestBody = &huma.RequestBody{
				Required: !r.optionalBody,
				Content:  map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(r.request, true, "")}},
			}
		}
		for _, m := range openAPIParameter.FindAllStringSubmatch(r.path, -1) {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: "string"},
			})
		}
		for _, q := range r.query {
			schema := &huma.Schema{Type: "string"}
			if q.most != 0 {
				least, most := float64(q.least), float64(q.most)
				schema = &huma.Schema{Type: "integer", Minimum: &least, Maximum: &most, Default: q.normal}
			}
			op.Parameters = append(op.Parameters, &huma.Param{Name: q.name, In: "query", Description: q.description, Schema: schema})
		}
		doc.AddOperation(op)
	}
	for name, schema := range maps.Clone(schemas.Map()) {
		if p := schema.Properties; p["email"] != nil && p["slack_team_id"] != nil && p["slack_user_id"] != nil {
			nameByEmailOrSlack(schemas, name, schema)
		}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return append(indented.Bytes(), '\n'), nil
}

// nameByEmailOrSlack turns the schema of an object that identifies a person into a choice of complete
// schemas. If it has a hold_id, that names the event and its person; otherwise, the event's key is
// required. A choice of lists of required fields would mean the same, but client generators turn it
// into a type that accepts anything.
func nameByEmailOrSlack(schemas huma.Registry, name string, schema *huma.Schema) {
	choice := &huma.Schema{}
	add := func(suffix string, without []string, required ...string) *huma.Schema {
		variant := *schema
		variant.Properties = maps.Clone(schema.Properties)
		for _, name := range without {
			delete(variant.Properties, name)
		}
		variant.Required = slices.Concat(schema.Required, required)
		schemas.Map()[name+suffix] = &variant
		choice.AnyOf = append(choice.AnyOf, &huma.Schema{Ref: schemaPrefix + name + suffix})
		return &variant
	}
	var hold, key []string
	if schema.Properties["hold_id"] != nil {
		hold, key = []string{"hold_id"}, []string{"idempotency_key"}
		add("ByHold", []string{"email", "slack_team_id", "slack_user_id", "idempotency_key"}, hold...)
	}
	byEmail := add("ByEmail", hold, append(key, "email")...)
	byEmail.DependentRequired = map[string][]string{"slack_team_id": {"slack_user_id"}, "slack_user_id": {"slack_team_id"}}
	add("BySlack", hold, append(key, "slack_team_id", "slack_user_id")...)
	*schema = *choice
}

func (s *Server) openAPIDocument(c echo.Context) error {
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, s.document)
}

// errorCodes returns the codes that the route may answer with, by status: its own codes, and those
// of every route with a key or a body.
func (r *route) errorCodes() map[int][]models.Code {
	codes := slices.Clone(r.codes)
	if r.scope != "" {
		codes = append(codes, codeUnauthorized, codeInsufficientScope, codeRateLimited, models.CodeUnavailable, codeInternal)
	}
	if r.request != nil {
		codes = append(codes, codeInvalidJSON, codePayloadTooLarge, codeUnsupportedMedia,
			models.CodeInvalidRequest, models.CodeOverloaded)
	}
	byStatus := map[int][]models.Code{}
	for _, code := range codes {
		status := problems[code].status
		if !slices.Contains(byStatus[status], code) {
			byStatus[status] = append(byStatus[status], code)
		}
	}
	return byStatus
}

// schemaName returns the name of a Go type in the document.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if name == "" { // a plain map or list, which has no schema of its own
		return name
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
