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
}

// FieldError is an error in one field of a request.
type FieldError struct {
	Path    string `json:"path" doc:"The JSON path of the field, such as events[3].email; empty for the whole body."`
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

// problems maps each code to its HTTP status and title. onPages means that only pages and
// requests from Stripe and Slack use the code, not the API.
var problems = map[models.Code]struct {
	status  int
	title   string
	onPages bool
}{
	codeInvalidJSON:                 {http.StatusBadRequest, "Not JSON", false},
	codeUnauthorized:                {http.StatusUnauthorized, "No valid API key", false},
	codeInsufficientScope:           {http.StatusForbidden, "The API key lacks the scope", false},
	codeNotFound:                    {http.StatusNotFound, "Not found", false},
	models.CodeUnknownUser:          {http.StatusNotFound, "Unknown user", false},
	models.CodeUnknownOrganization:  {http.StatusNotFound, "Unknown organization", false},
	models.CodeUnknownHold:          {http.StatusNotFound, "Unknown hold", false},
	models.CodeUnknownEvent:         {http.StatusNotFound, "Unknown event", false},
	codeMethodNotAllowed:            {http.StatusMethodNotAllowed, "Method not allowed", false},
	models.CodeIdempotencyKeyReused: {http.StatusConflict, "Idempotency key reused", false},
	models.CodeHoldSettled:          {http.StatusConflict, "Hold settled", false},
	models.CodeHoldReleased:         {http.StatusConflict, "Hold released", false},
	models.CodeHoldExpired:          {http.StatusConflict, "Hold expired", false},
	models.CodeChangedMeanwhile:     {http.StatusConflict, "Changed in the meantime", true},
	codePayloadTooLarge:             {http.StatusRequestEntityTooLarge, "Body too large", false},
	codeUnsupportedMedia:            {http.StatusUnsupportedMediaType, "Not sent as JSON", false},
	models.CodeInvalidRequest:       {http.StatusUnprocessableEntity, "Invalid request", false},
	codeRateLimited:                 {http.StatusTooManyRequests, "Too many requests", false},
	codeInternal:                    {http.StatusInternalServerError, "Internal error", false},
	models.CodeUnavailable:          {http.StatusServiceUnavailable, "Unavailable", false},
	models.CodeOverloaded:           {http.StatusServiceUnavailable, "Overloaded", false},
	codeBadForm:                     {http.StatusBadRequest, "That did not work", true},
	codeSignInFailed:                {http.StatusBadRequest, "You are not signed in", true},
	codeForbidden:                   {http.StatusForbidden, "Not allowed", true},
	codeCrossSite:                   {http.StatusForbidden, "Sent from another site", true},
	codeBadSignature:                {http.StatusBadRequest, "Not signed by Stripe", true},
	codeBadSlackSignature:           {http.StatusUnauthorized, "Not signed by Slack", true},
	codeSlackRepeated:               {http.StatusConflict, "Already answered", true},
	models.CodeSignInRefused:        {http.StatusForbidden, "You are not signed in", true},
	models.CodeUnknownLink:          {http.StatusNotFound, "This link does not work", true},
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
	case p.Code == codeNotFound, p.Code == codeInternal, p.databaseAway:
		page.Title, page.Detail = "", "" // the page has its own text
	case p.Code == models.CodeUnavailable, p.Code == models.CodeOverloaded, p.Code == codeForbidden:
		page.Title = "" // the page has its own title; the detail says what is unavailable or who can help
	}
	return page
}

// seconds formats a duration for Retry-After, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
