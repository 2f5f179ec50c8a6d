package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// Problem is an error answer of the API: RFC 9457 with a stable code.
type Problem struct {
	Type   string       `json:"type" doc:"Where the code is explained." format:"uri-reference"`
	Title  string       `json:"title" doc:"The code in words."`
	Status int          `json:"status" doc:"The HTTP status."`
	Code   models.Code  `json:"code" doc:"A stable name of the error, for programs."`
	Detail string       `json:"detail" doc:"What is wrong with this request, for people."`
	Errors []FieldError `json:"errors" doc:"The invalid fields; may be empty." nullable:"false"`

	retryAfter time.Duration
	// databaseAway means that the database is unreachable, full or stalled.
	databaseAway bool
	helpers      []views.Person // people who can help; shown on pages
	detailed     bool           // a page shows the detail instead of its own text
	heading      string         // the title of a page about codeForbidden, instead of its own
}

// FieldError is an error in one field of a request.
type FieldError struct {
	Path    string `json:"path" doc:"The name of the field or parameter, such as email or period; empty for the whole body."`
	Message string `json:"message" doc:"What is wrong with the field, or what it must be."`
}

func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// The codes of errors that do not come from models.
const (
	codeInvalidJSON       models.Code = "invalid_json"
	codeUnauthorized      models.Code = "unauthorized"
	codeInsufficientScope models.Code = "insufficient_scope"
	codeNotFound          models.Code = "not_found"
	codeMethodNotAllowed  models.Code = "method_not_allowed"
	codePayloadTooLarge   models.Code = "payload_too_large"
	codeUnsupportedMedia  models.Code = "unsupported_media_type"
	codeInternal          models.Code = "internal"
	codeBadForm           models.Code = "bad_form"
	codeSignInFailed      models.Code = "sign_in_failed"
	codeForbidden         models.Code = "forbidden"
	codeCrossSite         models.Code = "cross_site"
	codeBadSignature      models.Code = "bad_signature"
	codeBadSlackSignature models.Code = "bad_slack_signature"
	codeSlackRepeated     models.Code = "slack_request_repeated"
	codeRateLimited       models.Code = "rate_limited"
	invalidRequestDetail              = "Some fields are invalid; see `errors`."
	statusClientClosed                = 499 // nginx's status for a client that did not wait
	problemContentType                = "application/problem+json"
)

// problems maps each code to its HTTP status, its title, and what it means for the caller of the API.
// Codes without a meaning are used only by pages and for requests from Stripe and Slack.
var problems = map[models.Code]struct {
	status         int
	title, meaning string
}{
	codeInvalidJSON: {http.StatusBadRequest, "Not JSON", "The body is not one JSON value in UTF-8."},
	codeUnauthorized: {http.StatusUnauthorized, "No valid API key",
		"The Authorization header has no API key, or one that does not exist or was revoked."},
	codeInsufficientScope: {http.StatusForbidden, "The API key lacks the scope",
		"The call needs a scope that the API key lacks. The detail names it."},
	codeNotFound: {http.StatusNotFound, "Not found", "There is nothing at this address."},
	models.CodeUnknownUser: {http.StatusNotFound, "Unknown user",
		"No person has this email or this Slack identity. If you gave only Slack IDs, give the email, too."},
	models.CodeUnknownOrganization: {http.StatusNotFound, "Unknown organization", "No organization has this ID."},
	models.CodeUnknownHold:         {http.StatusNotFound, "Unknown hold", "No hold has this ID."},
	models.CodeUnknownEvent: {http.StatusNotFound, "Unknown event",
		"No person with this email or Slack identity has an event with this idempotency key, or the hold was not settled."},
	codeMethodNotAllowed: {http.StatusMethodNotAllowed, "Method not allowed", "The address does not support this method."},
	models.CodeIdempotencyKeyReused: {http.StatusConflict, "Idempotency key reused",
		"The idempotency key was already used for this person with another quantity. Use a new key for each use of units."},
	models.CodeHoldSettled: {http.StatusConflict, "Hold settled",
		"The hold was settled with another quantity, or cannot be released because it was settled. Its units are recorded."},
	models.CodeHoldReleased: {http.StatusConflict, "Hold released",
		"The hold was released, so it cannot be settled. Record the usage with POST /v1/events."},
	models.CodeHoldExpired: {http.StatusConflict, "Hold expired",
		"The hold expired, and its units were given back. Record the usage with POST /v1/events."},
	models.CodeChangedMeanwhile: {http.StatusConflict, "Changed in the meantime", ""},
	codePayloadTooLarge:         {http.StatusRequestEntityTooLarge, "Body too large", "The body is too large. The detail has the limit."},
	codeUnsupportedMedia: {http.StatusUnsupportedMediaType, "Not sent as JSON",
		"Send the body with Content-Type: application/json and without a Content-Encoding."},
	models.CodeInvalidRequest: {http.StatusUnprocessableEntity, "Invalid request",
		"Some fields are invalid. See errors in the response, which lists at most 100."},
	codeRateLimited: {http.StatusTooManyRequests, "Too many requests",
		"The API key made more calls per second than it may, or your address sent too many requests without a valid key. " +
			"Retry after the time in the Retry-After header."},
	codeInternal: {http.StatusInternalServerError, "Internal error",
		"The server had an error. Its log has the cause, under the ID in the X-Request-Id header."},
	models.CodeUnavailable: {http.StatusServiceUnavailable, "Unavailable",
		"The database is unreachable or busy, the server is stopping, or a new spend limit is not in force yet. The detail says " +
			"which. Retry after the time in the Retry-After header."},
	models.CodeOverloaded: {http.StatusServiceUnavailable, "Overloaded",
		"Too many calls are waiting, or too many large bodies are being read. Retry after the time in the Retry-After header."},
	codeBadForm:              {http.StatusBadRequest, "That did not work", ""},
	codeSignInFailed:         {http.StatusBadRequest, "You are not signed in", ""},
	codeForbidden:            {http.StatusForbidden, "Not allowed", ""},
	codeCrossSite:            {http.StatusForbidden, "Sent from another site", ""},
	codeBadSignature:         {http.StatusBadRequest, "Not signed by Stripe", ""},
	codeBadSlackSignature:    {http.StatusUnauthorized, "Not signed by Slack", ""},
	codeSlackRepeated:        {http.StatusConflict, "Already answered", ""},
	models.CodeSignInRefused: {http.StatusForbidden, "You are not signed in", ""},
	models.CodeUnknownLink:   {http.StatusNotFound, "This link does not work", ""},
}

func newProblem(code models.Code, detail string, errs ...FieldError) *Problem {
	known := problems[code]
	if errs == nil {
		errs = []FieldError{}
	}
	return &Problem{Type: "/docs#" + string(code), Title: known.title, Status: known.status, Code: code, Detail: detail, Errors: errs}
}

func invalid(errs ...FieldError) *Problem {
	return newProblem(models.CodeInvalidRequest, invalidRequestDetail, errs...)
}

// asProblem converts any error to a Problem. Its text contains nothing about SQL, files or stacks.
func asProblem(err error) *Problem {
	var p *Problem
	var refused *models.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &refused):
		if refused.Code == models.CodeInvalidRequest {
			return invalid(FieldError{Path: refused.Path, Message: refused.Detail})
		}
		p = newProblem(refused.Code, refused.Detail)
		if refused.Path != "" {
			p.Errors = []FieldError{{Path: refused.Path, Message: refused.Detail}}
		}
		p.retryAfter, p.databaseAway = refused.RetryAfter, refused.DatabaseAway
		return p
	case errors.Is(err, echo.ErrNotFound):
		return newProblem(codeNotFound, "There is nothing at this address.")
	case errors.Is(err, echo.ErrMethodNotAllowed):
		return newProblem(codeMethodNotAllowed, "This address does not support this method.")
	case models.IsInvalidText(err):
		return newProblem(codeBadForm, "The request contains invalid characters.")
	case errors.Is(err, context.DeadlineExceeded), models.IsUnavailable(err):
		return asProblem(models.Unavailable(err))
	}
	return newProblem(codeInternal, "Something went wrong on our side. The log has details under the request ID.")
}

// hasLeft reports whether the client closed its connection. net/http then ends the request's
// context; it also does so when a write fails.
func hasLeft(c echo.Context) bool { return c.Request().Context().Err() != nil }

// fail answers a request with an error.
func (s *Server) fail(c echo.Context, err error) {
	if s.wasEnded(c.Request()) {
		err = errStopped
	}
	if c.Response().Committed {
		if hasLeft(c) {
			return
		}
		s.log.Error("a response is incomplete", "request_id", requestID(c), "path", c.Path(), "error", err)
		return
	}
	if hasLeft(c) && models.IsCanceled(err) {
		c.Response().WriteHeader(statusClientClosed) // no client reads it
		return
	}
	leaveBody(c)
	p := asProblem(err)
	h := c.Response().Header()
	if p.retryAfter > 0 {
		h.Set("Retry-After", seconds(p.retryAfter))
	}
	if isPage(c.Request().URL.Path) {
		if err := show(c, p.Status, views.ErrorPage(s.onPage(c, p))); err != nil {
			s.log.Error("an error page could not be rendered", "error", err)
			c.Response().WriteHeader(p.Status)
		}
		return
	}
	h.Set(echo.HeaderContentType, problemContentType)
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="tollgate"`)
	}
	body, err := json.Marshal(p)
	if err != nil {
		s.log.Error("an error could not be encoded as JSON", "error", err)
	}
	c.Response().WriteHeader(p.Status)
	_, _ = c.Response().Write(body) // it does not matter if the client is gone
}

// leaveBody closes the connection after an answer to a request whose body was not read. Otherwise
// net/http would read up to 256 KiB of it before it sends the answer. A small body of an API call
// is read, because the app reuses its connection.
func leaveBody(c echo.Context) {
	r := c.Request()
	conn := connectionOf(r)
	if conn == nil || !conn.unread.Load() ||
		strings.HasPrefix(r.URL.Path, "/v1/") && r.ContentLength >= 0 && r.ContentLength <= freeBody {
		return
	}
	c.Response().Header().Set("Connection", "close")
}

// onPage returns the problem as a page shows it.
func (s *Server) onPage(c echo.Context, p *Problem) views.Error {
	page := views.Error{
		Frame: s.frame(c), Status: p.Status, Title: p.Title, Detail: p.Detail, Admins: p.helpers, RequestID: requestID(c),
		SignIn: p.Code == codeSignInFailed || p.Code == models.CodeSignInRefused || p.Code == models.CodeUnknownLink,
	}
	switch {
	case p.detailed:
		page.Title = ""
	case p.Code == codeNotFound, p.Code == codeInternal, p.databaseAway:
		page.Title, page.Detail = "", "" // the page has its own text
	case p.Code == models.CodeUnavailable, p.Code == models.CodeOverloaded, p.Code == codeForbidden:
		page.Title = p.heading // the page has its own title; the detail says what is unavailable or who can help
	}
	return page
}

// seconds formats a duration for Retry-After, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
