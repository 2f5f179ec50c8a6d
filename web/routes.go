package web

import (
	"net/http"
	"reflect"
	"regexp"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// route is one endpoint of the API: what is served and what its document says, from one place.
type route struct {
	method, path string // the path as OpenAPI writes it
	id           string
	summary      string
	description  string
	scope        models.Scope // empty: no key needed
	query        []queryParameter
	request      reflect.Type // nil: no body
	optionalBody bool
	response     reflect.Type
	codes        []models.Code // the faults that are its own
	handle       echo.HandlerFunc
}

type queryParameter struct {
	name, description   string
	least, most, normal int
}

func (s *Server) api() []route {
	naming := " Name the person by `email`, or by `slack_team_id` and `slack_user_id`; given all three, they are linked."
	return []route{
		{
			method: http.MethodPost, path: "/v1/check", id: "check", scope: models.ScopeCheck, handle: s.check,
			summary: "May this person have more?", description: "The decision; no usage is recorded." + naming + " A key without the scope `consume` links only whom nobody knows yet: it moves no identity from one person to another, and no person to another team.",
			request: reflect.TypeFor[CheckRequest](), response: reflect.TypeFor[Decision](), codes: []models.Code{models.CodeUnknownUser},
		},
		{
			method: http.MethodPost, path: "/v1/consume", id: "consume", scope: models.ScopeConsume, handle: s.consume,
			summary: "Decide and record", description: "The decision and its record are one transaction. A retry with the same key gets the first answer; a refusal is not remembered." + naming,
			request: reflect.TypeFor[consumeRequest](), response: reflect.TypeFor[ConsumeAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeIdempotencyKeyReused},
		},
		{
			method: http.MethodPost, path: "/v1/holds", id: "hold", scope: models.ScopeConsume, handle: s.hold,
			summary: "Set units aside", description: "For work that takes a while: the units count as held until the hold is settled, released or expires. A retry with the same key gets the first answer, with the hold in the state that it is in now: only an open one still holds its units." + naming,
			request: reflect.TypeFor[holdRequest](), response: reflect.TypeFor[holdAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeIdempotencyKeyReused},
		},
		{
			method: http.MethodPost, path: "/v1/holds/{id}/settle", id: "settle", scope: models.ScopeConsume, handle: s.settle,
			summary: "Turn a hold into usage", description: "Records at most what is held and gives back the rest. The same settling again gets the first answer.",
			request: reflect.TypeFor[settleRequest](), response: reflect.TypeFor[settleAnswer](),
			codes: []models.Code{models.CodeUnknownHold, models.CodeHoldSettled, models.CodeHoldReleased, models.CodeHoldExpired},
		},
		{
			method: http.MethodPost, path: "/v1/holds/{id}/release", id: "release", scope: models.ScopeConsume, handle: s.release,
			summary: "Give a hold back", description: "Releasing twice is releasing once.",
			request: reflect.TypeFor[releaseRequest](), optionalBody: true, response: reflect.TypeFor[holdAnswer](),
			codes: []models.Code{models.CodeUnknownHold, models.CodeHoldSettled},
		},
		{
			method: http.MethodPost, path: "/v1/events", id: "events", scope: models.ScopeConsume, handle: s.events,
			summary: "Record what already happened", description: "Never refused for a limit. Each event counts in the billing period that it occurred in. They are taken in order: one may name somebody by the Slack ids that one before it links." + naming,
			request: reflect.TypeFor[eventsRequest](), response: reflect.TypeFor[eventsAnswer](),
		},
		{
			method: http.MethodGet, path: "/v1/usage/{email}", id: "usage", scope: models.ScopeRead, handle: s.usage,
			summary: "Where a person stands", description: "What a check for one more unit would say. Somebody unknown is a new person on the free plan.",
			response: reflect.TypeFor[Decision](), codes: []models.Code{models.CodeInvalidRequest},
		},
		{
			method: http.MethodGet, path: "/v1/usage/{email}/history", id: "history", scope: models.ScopeRead, handle: answered(queryTimeout, s.history),
			summary: "A person's billing periods", description: "Newest first, the current one among them as soon as anything was asked for in it.",
			query:    []queryParameter{{"months", "How many periods at most.", 1, maxMonths, models.DefaultHistoryMonths}},
			response: reflect.TypeFor[historyAnswer](), codes: []models.Code{models.CodeInvalidRequest},
		},
		{
			method: http.MethodGet, path: "/v1/organizations/{id}/usage", id: "organizationUsage", scope: models.ScopeRead, handle: answered(queryTimeout, s.organizationUsage),
			summary: "An organization's usage", description: "Totals and the ten people who used most, in the current billing period.",
			response: reflect.TypeFor[organizationAnswer](), codes: []models.Code{models.CodeUnknownOrganization},
		},
		{
			method: http.MethodGet, path: "/v1/openapi.json", id: "openapi", handle: s.openAPIDocument,
			summary: "This API as a document", description: "OpenAPI 3.1.", response: reflect.TypeFor[map[string]any](),
		},
		{
			method: http.MethodGet, path: "/healthz", id: "healthz", handle: s.healthz,
			summary: "Does the process run?", response: reflect.TypeFor[healthAnswer](),
		},
		{
			method: http.MethodGet, path: "/readyz", id: "readyz", handle: s.readyz,
			summary: "Can it decide?", description: "The database takes writes, and the server is not stopping.", response: reflect.TypeFor[healthAnswer](), codes: []models.Code{models.CodeUnavailable},
		},
	}
}

// releaseRequest is an empty object, or no body at all.
type releaseRequest struct{}

// schemaPrefix is where the document has its schemas.
const schemaPrefix = "#/components/schemas/"

var openAPIParameter = regexp.MustCompile(`\{(\w+)\}`)

func (s *Server) routes() error {
	for _, r := range s.api() {
		handle := r.handle
		if r.scope != "" {
			handle = s.needs(r.scope, handle)
		}
		s.echo.Add(r.method, openAPIParameter.ReplaceAllString(r.path, ":$1"), handle)
	}
	schemas := huma.NewMapRegistry(schemaPrefix, schemaName)
	err := s.drawDocs(schemas)
	if err != nil {
		return err
	}
	if s.document, err = s.openAPI(schemas); err != nil {
		return err
	}
	s.echo.GET("/static/*", s.asset)
	s.echo.POST(webhookPath, answered(webhookPatience, s.stripeWebhook))
	return s.addPages(s.pages())
}
