package web

import (
	"net/http"
	"reflect"
	"regexp"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// route is one endpoint of the API: both its handler and its documentation.
type route struct {
	method, path string // in OpenAPI's notation
	id           string
	summary      string
	description  string
	scope        models.Scope // empty: no key needed
	audited      bool         // the handler calls keyOf
	query        []queryParameter
	request      reflect.Type // nil: no body
	optionalBody bool
	response     reflect.Type
	codes        []models.Code // the errors of this route alone
	handle       echo.HandlerFunc
}

// queryParameter is a text, or a number from least to most if most is not 0.
type queryParameter struct {
	name, description   string
	least, most, normal int
}

func (s *Server) api() []route {
	naming := " Identify the person by `email`, or by `slack_team_id` and `slack_user_id`. If you give all three, an unlinked Slack " +
		"identity is linked to the person with the email; for the exceptions, see the description of the field `slack_team_id`."
	period := queryParameter{name: "period", description: "The month in which the billing period began (`2026-10`), or its first day " +
		"(`2026-10-13`), which must not be in the future. Default: the current billing period."}
	cursor := queryParameter{name: "cursor", description: "The `next_cursor` of an earlier response."}
	return []route{
		{
			method: http.MethodPost, path: "/v1/check", id: "check", scope: models.ScopeCheck, handle: s.check,
			summary:     "May this person have more?",
			description: "Returns the decision and records no usage." + naming,
			request:     reflect.TypeFor[CheckRequest](), response: reflect.TypeFor[Decision](),
			codes: []models.Code{models.CodeUnknownUser},
		},
		{
			method: http.MethodPost, path: "/v1/consume", id: "consume", scope: models.ScopeConsume, handle: s.consume,
			summary: "Decide and record",
			description: "Decides and records in one transaction. A retry with the same idempotency key gets the first answer. " +
				"After a refusal, a retry is decided again." + naming,
			request: reflect.TypeFor[consumeRequest](), response: reflect.TypeFor[ConsumeAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeIdempotencyKeyReused},
		},
		{
			method: http.MethodPost, path: "/v1/holds", id: "hold", scope: models.ScopeConsume, handle: s.hold,
			summary: "Set units aside",
			description: "For work that takes a while: the units count as held until the hold is settled, is released or expires. " +
				"A retry with the same idempotency key gets the first answer, with the current state of the hold. " +
				"Units are set aside only while the hold is open." + naming,
			request: reflect.TypeFor[holdRequest](), response: reflect.TypeFor[holdAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeIdempotencyKeyReused},
		},
		{
			method: http.MethodPost, path: "/v1/holds/{id}/settle", id: "settle", scope: models.ScopeConsume, handle: s.settle,
			summary: "Turn a hold into usage",
			description: "Records `quantity` units, at most the hold's quantity, and releases the rest. " +
				"A repeated call with the same quantity gets the first answer.",
			request: reflect.TypeFor[settleRequest](), response: reflect.TypeFor[settleAnswer](),
			codes: []models.Code{models.CodeUnknownHold, models.CodeHoldSettled, models.CodeHoldReleased, models.CodeHoldExpired},
		},
		{
			method: http.MethodPost, path: "/v1/holds/{id}/release", id: "release", scope: models.ScopeConsume, handle: s.release,
			summary: "Release a hold", description: "Releasing a hold again has no effect.",
			request: reflect.TypeFor[releaseRequest](), optionalBody: true, response: reflect.TypeFor[holdAnswer](),
			codes: []models.Code{models.CodeUnknownHold, models.CodeHoldSettled},
		},
		{
			method: http.MethodPost, path: "/v1/events", id: "events", scope: models.ScopeConsume, handle: s.events,
			summary: "Record what already happened",
			description: "No event is refused because of a limit. Units beyond the included ones are billed if the person's " +
				"`overage_rate_cents` is above 0; during a trial, it is 0. Units beyond a member limit or a spend limit are recorded but " +
				"not billed, and so are all units beyond the included ones while a payment is past due. Each event counts in the billing " +
				"period in which it occurred. Events are processed in order, so an event can use Slack IDs that an earlier event linked. " +
				"Tollgate deletes old events. An event from a time whose events may already have been deleted is invalid, unless Tollgate still " +
				"has an event with the same key." + naming,
			request: reflect.TypeFor[eventsRequest](), response: reflect.TypeFor[eventsAnswer](),
		},
		{
			method: http.MethodGet, path: "/v1/usage/{email}", id: "usage", scope: models.ScopeRead, handle: s.usage,
			summary: "A person's current usage",
			description: "Returns what a check for one more unit with `notify` set to `always` would return. " +
				"For an unknown email, the answer has the figures of a new person on the free plan.",
			response: reflect.TypeFor[Decision](), codes: []models.Code{models.CodeInvalidRequest, models.CodeOverloaded},
		},
		{
			method: http.MethodGet, path: "/v1/usage/{email}/history", id: "history", scope: models.ScopeRead,
			handle:  answered(queryTimeout, s.history),
			summary: "A person's billing periods",
			description: "Newest first. Only periods with a usage record are listed. A consume, hold, event or grant creates the " +
				"record; a check does not.",
			query:    []queryParameter{{"months", "The maximum number of periods.", 1, maxMonths, models.DefaultHistoryMonths}},
			response: reflect.TypeFor[historyAnswer](), codes: []models.Code{models.CodeInvalidRequest},
		},
		{
			method: http.MethodGet, path: "/v1/usage/{email}/events", id: "activity", scope: models.ScopeRead,
			handle:      answered(queryTimeout, s.activity),
			summary:     "A person's events",
			description: "Each recorded use of units in one billing period, newest first.",
			query:       []queryParameter{period, cursor},
			response:    reflect.TypeFor[activityAnswer](), codes: []models.Code{models.CodeInvalidRequest, models.CodeOverloaded},
		},
		{
			method: http.MethodGet, path: "/v1/organizations/{id}/usage", id: "organizationUsage", scope: models.ScopeRead,
			handle:  answered(queryTimeout, s.organizationUsage),
			summary: "An organization's usage",
			description: "Totals and the ten users with the most usage in a billing period. For a past period, the figures " +
				"are those of the current members who had signed up by its end or have usage in it.",
			query:    []queryParameter{period},
			response: reflect.TypeFor[organizationAnswer](),
			codes:    []models.Code{models.CodeUnknownOrganization, models.CodeInvalidRequest},
		},
		{
			method: http.MethodGet, path: "/v1/organizations/{id}/members", id: "organizationMembers", scope: models.ScopeRead,
			handle:  answered(queryTimeout, s.organizationMembers),
			summary: "An organization's members",
			description: "All members with their usage in a billing period, including those without usage, sorted by email, up to 100 at a " +
				"time. For a past period, these are the current members who had signed up by its end, or have usage in it. Such a response " +
				"can have fewer than 100 members, or none, before the end of the list, so continue until `next_cursor` is null.",
			query:    []queryParameter{period, cursor},
			response: reflect.TypeFor[membersAnswer](),
			codes:    []models.Code{models.CodeUnknownOrganization, models.CodeInvalidRequest},
		},
		{
			method: http.MethodPatch, path: "/v1/organizations/{id}", id: "changeOrganization", scope: models.ScopeManage,
			handle: answered(queryTimeout, s.changeOrganization), audited: true,
			summary: "Change an organization's name and limits",
			description: "A field that you leave out keeps its value. Send null to remove a limit. " +
				"A new limit applies to each decision that is made after the response. Returns the same object as `GET /v1/organizations/{id}/usage`.",
			request: reflect.TypeFor[organizationRequest](), response: reflect.TypeFor[organizationAnswer](),
			codes: []models.Code{models.CodeUnknownOrganization},
		},
		{
			method: http.MethodPatch, path: "/v1/users/{email}", id: "changeUser", scope: models.ScopeManage,
			handle: answered(queryTimeout, s.changeUser), audited: true,
			summary: "Change a person's role, member limit and organization",
			description: "A field that you leave out keeps its value. A null `member_limit` means the organization's default. " +
				"A null `organization_id` removes the person from their organization. A person who leaves an organization, or moves to " +
				"another one, becomes a `member`, loses their own member limit, and is no longer linked to Slack. " +
				"If the same request sets `role` or `member_limit`, these apply in the new organization.",
			request: reflect.TypeFor[userRequest](), response: reflect.TypeFor[userAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeUnknownOrganization},
		},
		{
			method: http.MethodPost, path: "/v1/void", id: "void", scope: models.ScopeConsume, handle: answered(queryTimeout, s.void),
			audited: true,
			summary: "Reverse an event",
			description: "Subtracts the event's units and overage from the billing period in which the event counts. Other events do not " +
				"change: overage that was recorded after this event stays overage. Identify the event by `hold_id`, or by " +
				"`idempotency_key` and the person. Identify the person by `email`, or by " +
				"`slack_team_id` and `slack_user_id`. A repeated call gets the first answer. " +
				"If the event is already in a report to Stripe, the API key also needs the scope `manage`.",
			request: reflect.TypeFor[voidRequest](), response: reflect.TypeFor[voidAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeUnknownHold, models.CodeUnknownEvent},
		},
		{
			method: http.MethodPost, path: "/v1/grants", id: "grant", scope: models.ScopeManage, handle: answered(queryTimeout, s.grant),
			audited: true,
			summary: "Add included units",
			description: "The units count in the person's current billing period, in addition to those of the plan. What is unused at " +
				"`expires_at` is taken back. A retry with the same idempotency key adds nothing; " +
				"its answer has the first grant and the current figures." + naming,
			request: reflect.TypeFor[grantRequest](), response: reflect.TypeFor[grantAnswer](),
			codes: []models.Code{models.CodeUnknownUser, models.CodeIdempotencyKeyReused},
		},
		{
			method: http.MethodGet, path: "/v1/openapi.json", id: "openapi", handle: s.openAPIDocument,
			summary: "This API as a document", description: "OpenAPI 3.1.", response: reflect.TypeFor[map[string]any](),
		},
		{
			method: http.MethodGet, path: "/healthz", id: "healthz", handle: s.healthz,
			summary: "Is the process running?", response: reflect.TypeFor[healthAnswer](),
		},
		{
			method: http.MethodGet, path: "/readyz", id: "readyz", handle: s.readyz,
			summary: "Can calls be recorded?", description: "Returns 200 if the database accepts writes and the server is not stopping.",
			response: reflect.TypeFor[healthAnswer](), codes: []models.Code{models.CodeUnavailable},
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
			handle = s.needs(r.scope, r.audited, handle)
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
	s.slackRoutes()
	return s.addPages(s.pages())
}
