package web

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// The size limits of bodies, in bytes.
const (
	maxBody       = 64 << 10
	maxEventsBody = 1 << 20
)

// body reads a request's JSON strictly. encoding/json accepts input that must be refused: unknown
// and duplicate fields, and broken UTF-8, which could make two idempotency keys equal. body reports
// every error with its path, not only the first one.
type body struct {
	raw         bytes.Buffer
	small       [freeBody]byte // memory of raw if the body fits
	lease       bodyLease      // of a call; a batch has its own
	decoder     jsontext.Decoder
	path        []byte // of the array element that is being read, such as "events[3]."
	fieldErrors []FieldError
}

var bodies = sync.Pool{New: func() any { return new(body) }}

var errNotJSON = errors.New("the body is not JSON")

// decode reads the body of a call with read. The error is a Problem with status 413, 415, 400, 422
// or 503.
func (s *Server) decode(c echo.Context, limit int64, read func(*body) error) error {
	return decode(c, limit, func(b *body) *bodyLease {
		b.lease = s.callBodies.lease(c, 2)
		return &b.lease
	}, read)
}

func decode(c echo.Context, limit int64, lease func(*body) *bodyLease, read func(*body) error) error {
	r := c.Request()
	if !isJSON(r.Header.Get(echo.HeaderContentType)) {
		return newProblem(codeUnsupportedMedia, "Send the body with Content-Type: application/json.")
	}
	for _, encoding := range r.Header[echo.HeaderContentEncoding] {
		if !strings.EqualFold(encoding, "identity") {
			return newProblem(codeUnsupportedMedia, "Send the body without a Content-Encoding.")
		}
	}
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	b := bodies.Get().(*body)
	l := lease(b)
	b.fieldErrors, b.path = nil, b.path[:0]
	raw, err := l.read(r, b.small[:], limit)
	defer func() {
		if l == &b.lease {
			l.close()
		}
		if cap(raw) <= freeBody { // do not store a large buffer in the pool
			bodies.Put(b)
		}
	}()
	switch {
	case isProblem(err):
		return err
	case err != nil:
		return newProblem(codeInvalidJSON, "The body is incomplete.")
	case int64(len(raw)) > limit:
		return tooLarge(limit)
	}
	b.raw = *bytes.NewBuffer(raw)
	return b.parse(read)
}

// parse reads the JSON in b.raw.
func (b *body) parse(read func(*body) error) error {
	err := errNotJSON
	if utf8.Valid(b.raw.Bytes()) {
		// The code below detects duplicate fields and unpaired surrogates, so that it can name the field.
		b.decoder.Reset(&b.raw, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		err = read(b)
	}
	if err == nil {
		if _, err = b.decoder.ReadToken(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errNotJSON
		}
	}
	switch {
	case err != nil:
		return newProblem(codeInvalidJSON, "The body must be one JSON value in UTF-8 (RFC 8259).")
	case len(b.fieldErrors) > 0:
		return invalid(b.fieldErrors...)
	}
	return nil
}

func tooLarge(limit int64) error {
	return newProblem(codePayloadTooLarge, fmt.Sprintf("The body is larger than %d KiB.", limit>>10))
}

func isJSON(contentType string) bool {
	if contentType == echo.MIMEApplicationJSON {
		return true
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != echo.MIMEApplicationJSON {
		return false
	}
	charset, has := params["charset"]
	return !has || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

func (b *body) reject(name, message string) {
	if len(b.fieldErrors) < maxFieldErrors {
		b.fieldErrors = append(b.fieldErrors, FieldError{Path: string(b.path) + name, Message: message})
	}
}

// field is one field of an object. read stores its value in a T.
type field[T any] struct {
	name     string
	required bool
	read     func(b *body, name string, into *T) error
}

// readObject reads an object's fields. It collects field errors in b; it returns an error if the
// body is not JSON.
func readObject[T any](b *body, fields []field[T], into *T) error {
	if b.decoder.PeekKind() != '{' {
		b.reject("", "must be a JSON object")
		return b.decoder.SkipValue()
	}
	if _, err := b.decoder.ReadToken(); err != nil {
		return err
	}
	var seen uint // one bit per field
	for b.decoder.PeekKind() != '}' {
		name, err := b.decoder.ReadValue()
		if err != nil {
			return err
		}
		plain := name[1 : len(name)-1]
		if bytes.IndexByte(plain, '\\') >= 0 {
			plain, _ = jsontext.AppendUnquote(nil, name) // a name with an unpaired surrogate matches no field
		}
		i := slices.IndexFunc(fields, func(f field[T]) bool { return string(plain) == f.name })
		switch {
		case i < 0:
			b.reject(string(plain), "is not a field of this request")
			if err := b.decoder.SkipValue(); err != nil {
				return err
			}
		case seen&(1<<i) != 0:
			b.reject(fields[i].name, "must not be repeated")
			if err := b.decoder.SkipValue(); err != nil {
				return err
			}
		default:
			seen |= 1 << i
			if err := fields[i].read(b, fields[i].name, into); err != nil {
				return err
			}
		}
	}
	for i, f := range fields {
		if f.required && seen&(1<<i) == 0 {
			b.reject(f.name, "is required")
		}
	}
	_, err := b.decoder.ReadToken()
	return err
}

// maxFieldErrors limits the number of errors in one answer.
const maxFieldErrors = 100

// parameter reads a query parameter. It returns the zero value without one, and adds a field error
// if the parameter is invalid or repeated.
func parameter[T any](query url.Values, name string, parse func(string) (T, error), errs *[]FieldError) (value T) {
	texts := query[name]
	if texts == nil {
		return value
	}
	value, err := parse(texts[0])
	switch {
	case err != nil:
		*errs = append(*errs, FieldError{Path: name, Message: err.Error()})
	case len(texts) > 1:
		*errs = append(*errs, FieldError{Path: name, Message: "must not be repeated"})
	}
	return value
}

// text reads a string. If the value is not a string, text records a field error and ok is false.
func (b *body) text(name string) (s string, ok bool, err error) {
	if b.decoder.PeekKind() != '"' {
		b.reject(name, "must be a string")
		return "", false, b.decoder.SkipValue()
	}
	value, err := b.decoder.ReadValue()
	if err != nil {
		return "", false, err
	}
	if plain := value[1 : len(value)-1]; bytes.IndexByte(plain, '\\') < 0 {
		return string(plain), true, nil
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		b.reject(name, "must not contain an unpaired surrogate")
		return "", false, nil
	}
	return string(unquoted), true, nil
}

// integer reads a whole number from least to most.
func (b *body) integer(name string, least, most int64, into *int64) error {
	message := fmt.Sprintf
	if b.decoder.PeekKind() != '0' {
		b.reject(name, message("must be a whole number from %d to %d", least, most))
		return b.decoder.SkipValue()
	}
	value, err := b.decoder.ReadValue()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		// 3.0 and 1e2 are whole numbers in JSON Schema and in JavaScript too.
		f, floatErr := strconv.ParseFloat(string(value), 64)
		if n = int64(f); floatErr != nil || f < float64(least) || f > float64(most) || float64(n) != f {
			b.reject(name, message("must be a whole number from %d to %d", least, most))
			return nil
		}
	}
	if n < least || n > most {
		b.reject(name, message("must be a whole number from %d to %d", least, most))
		return nil
	}
	*into = n
	return nil
}

// Limits for the values in a request.
const (
	maxQuantity = 10_000
	maxKey      = 255
	maxTTL      = 86_400 // seconds
	defaultTTL  = 120    // seconds
	maxEvents   = 1_000
	// How far occurred_at may be in the future (another clock) and in the past (a wrong unit or year).
	maxAhead = 5 * time.Minute
	maxBack  = 400 * 24 * time.Hour
)

// notify reads when an answer has a message.
func (b *body) notify(name string, into *models.Notify) error {
	s, ok, err := b.text(name)
	if notify := models.Notify(s); slices.Contains(models.NotifyValues, notify) {
		*into = notify
	} else if ok {
		b.reject(name, `must be "once", "always" or "never"`)
	}
	return err
}

// silently returns the options of a call whose caller shows no message.
func silently(notify models.Notify) []enforcement.CallOption {
	if notify == models.NotifyNever {
		return []enforcement.CallOption{enforcement.Silent}
	}
	return nil
}

func (b *body) email(name string, into *string) error {
	s, ok, err := b.text(name)
	if err != nil || !ok {
		return err
	}
	email, invalid := models.ParseEmail(s)
	if invalid != nil {
		b.reject(name, invalid.Error())
		return nil
	}
	*into = email
	return nil
}

func (b *body) slackID(name string, into *string) error {
	s, ok, err := b.text(name)
	if err != nil || !ok {
		return err
	}
	if !models.IsSlackID(s) {
		b.reject(name, "must be a Slack ID: "+models.SlackIDRule)
		return nil
	}
	*into = s
	return nil
}

func (b *body) key(name string, into *string) error {
	s, ok, err := b.text(name)
	if err != nil || !ok {
		return err
	}
	if !isKey(s) {
		b.reject(name, "must be 1 to 255 printable characters")
		return nil
	}
	*into = s
	return nil
}

func isKey(s string) bool {
	if s == "" || utf8.RuneCountInString(s) > maxKey {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// PersonName is the part of a request that identifies a person.
type PersonName struct {
	Email       string `json:"email,omitempty" example:"ada@example.com" maxLength:"254"`
	SlackTeamID string `json:"slack_team_id,omitempty" example:"T0123ABCD" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
	SlackUserID string `json:"slack_user_id,omitempty" example:"U0123ABCD" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
}

// TransformSchema adds the descriptions that are too long for struct tags.
func (PersonName) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["email"].Description = "The person's email address. It is trimmed and converted to lowercase. " +
		"Required unless both Slack IDs are given and linked to a person."
	s.Properties["slack_team_id"].Description = "The Slack team ID; requires slack_user_id. Both IDs together are a Slack " +
		"identity. The first rule that applies decides: (1) If the identity is linked to a person, the call counts for that person. " +
		"If no one else has the email, it becomes that person's email; otherwise, it is ignored. (2) If the person with the email " +
		"has another Slack identity, or belongs to another organization than the Slack team does, Tollgate creates a separate person, " +
		"links the identity to them, and counts the call for them. (3) If the person with the email is an admin or operator, " +
		"the call counts for them, but the identity is not linked. (4) Otherwise, " +
		"the call counts for the person with the email, who is created if necessary, and the identity is linked to them."
	s.Properties["slack_user_id"].Description = "The person's Slack user ID; requires slack_team_id."
	return s
}

func personFields[T any](of func(*T) *PersonName) []field[T] {
	return []field[T]{
		{"email", false, func(b *body, name string, into *T) error {
			return b.email(name, &of(into).Email)
		}},
		{"slack_team_id", false, func(b *body, name string, into *T) error {
			return b.slackID(name, &of(into).SlackTeamID)
		}},
		{"slack_user_id", false, func(b *body, name string, into *T) error {
			return b.slackID(name, &of(into).SlackUserID)
		}},
	}
}

// person returns the person of a request, and records a field error if a part is missing. It is
// called after the object was read. Another field error already explains why a part is missing.
func (b *body) person(p *PersonName) enforcement.Person {
	if len(b.fieldErrors) == 0 {
		switch {
		case (p.SlackTeamID == "") != (p.SlackUserID == ""):
			if p.SlackTeamID == "" {
				b.reject("slack_team_id", "is required if slack_user_id is given, because a Slack user ID is unique only within its team")
			} else {
				b.reject("slack_user_id", "is required if slack_team_id is given")
			}
		case p.Email == "" && p.SlackTeamID == "":
			b.reject("email", "is required unless slack_team_id and slack_user_id are given")
		}
	}
	return enforcement.Person{Email: p.Email, Slack: models.SlackIdentity{TeamID: p.SlackTeamID, UserID: p.SlackUserID}}
}

// emptyBody accepts an empty JSON object or an empty body of any type, even if its length is not
// announced.
func (s *Server) emptyBody(c echo.Context) error {
	r := c.Request()
	if r.ContentLength < 0 {
		start := bufio.NewReader(r.Body)
		if _, err := start.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		r.Body = io.NopCloser(start) // net/http closes the original body itself
	}
	if r.ContentLength == 0 {
		return nil
	}
	return s.decode(c, maxBody, func(b *body) error { return readObject(b, nil, &struct{}{}) })
}

// lift turns the fields of an embedded struct into fields of the outer struct.
func lift[Outer, Inner any](fields []field[Inner], of func(*Outer) *Inner) []field[Outer] {
	lifted := make([]field[Outer], len(fields))
	for i, f := range fields {
		lifted[i] = field[Outer]{f.name, f.required, func(b *body, name string, into *Outer) error {
			return f.read(b, name, of(into))
		}}
	}
	return lifted
}
