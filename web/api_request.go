package web

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// The largest bodies, in bytes.
const (
	maxBody       = 64 << 10
	maxEventsBody = 1 << 20
)

// body reads a request's JSON by hand: strictly, as encoding/json lets pass what must not (unknown and doubled fields,
// broken UTF-8, which would make two idempotency keys one), with every fault named by its path and not only the first.
type body struct {
	raw     bytes.Buffer
	small   [freeBody]byte // raw has it if the body fits
	lease   bodyLease      // of a call; a batch has one of its own
	decoder jsontext.Decoder
	path    []byte // of the array element being read, such as "events[3]."
	faults  []FieldError
}

var bodies = sync.Pool{New: func() any { return new(body) }}

var errNotJSON = errors.New("the body is not JSON")

// decode reads the body of a call with read. It returns a Problem: 413, 415, 400, 422 or 503.
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
			return newProblem(codeUnsupportedMedia, "Send the body as it is, without a Content-Encoding.")
		}
	}
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	b := bodies.Get().(*body)
	l := lease(b)
	b.faults, b.path = nil, b.path[:0]
	raw, err := l.read(r, b.small[:], limit)
	defer func() {
		if l == &b.lease {
			l.close()
		}
		if cap(raw) <= freeBody { // a large one is not kept for others
			bodies.Put(b)
		}
	}()
	switch {
	case isProblem(err):
		return err
	case err != nil:
		return newProblem(codeInvalidJSON, "The body broke off.")
	case int64(len(raw)) > limit:
		return tooLarge(limit)
	}
	b.raw = *bytes.NewBuffer(raw)
	return b.parse(read)
}

// parse reads what is in b.raw.
func (b *body) parse(read func(*body) error) error {
	err := errNotJSON
	if utf8.Valid(b.raw.Bytes()) {
		// Doubled fields are found below, and named; and so are texts with half of a surrogate pair, which is all that is left of invalid UTF-8.
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
		return newProblem(codeInvalidJSON, "The body is not one JSON value in UTF-8 (RFC 8259).")
	case len(b.faults) > 0:
		return invalid(b.faults...)
	}
	return nil
}

func tooLarge(limit int64) error {
	return newProblem(codePayloadTooLarge, fmt.Sprintf("The body has more than %d KiB.", limit>>10))
}

func isJSON(contentType string) bool {
	if contentType == echo.MIMEApplicationJSON {
		return true
	}
	kind, params, err := mime.ParseMediaType(contentType)
	charset, has := params["charset"]
	return err == nil && kind == echo.MIMEApplicationJSON && (!has || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8"))
}

func (b *body) fault(name, message string) {
	if len(b.faults) < maxFaults {
		b.faults = append(b.faults, FieldError{Path: string(b.path) + name, Message: message})
	}
}

// field is one field of an object that may be read into a T.
type field[T any] struct {
	name     string
	required bool
	read     func(b *body, name string, into *T) error
}

// readObject reads an object's fields. Faults are collected; an error means that the body is not JSON.
func readObject[T any](b *body, fields []field[T], into *T) error {
	if b.decoder.PeekKind() != '{' {
		b.fault("", "must be a JSON object")
		return b.decoder.SkipValue()
	}
	if _, err := b.decoder.ReadToken(); err != nil {
		return err
	}
	var seen uint // a bit for each field
	for b.decoder.PeekKind() != '}' {
		name, err := b.decoder.ReadValue()
		if err != nil {
			return err
		}
		plain := name[1 : len(name)-1]
		if bytes.IndexByte(plain, '\\') >= 0 {
			plain, _ = jsontext.AppendUnquote(nil, name) // what has half of a surrogate pair is no field's name
		}
		i := slices.IndexFunc(fields, func(f field[T]) bool { return string(plain) == f.name })
		switch {
		case i < 0:
			b.fault(string(plain), "is not a field of this request")
			if err := b.decoder.SkipValue(); err != nil {
				return err
			}
		case seen&(1<<i) != 0:
			b.fault(fields[i].name, "is given twice")
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
			b.fault(f.name, "is required")
		}
	}
	_, err := b.decoder.ReadToken()
	return err
}

// maxFaults bounds what one answer tells.
const maxFaults = 100

// text reads a string; ok is false when it is something else, which is noted.
func (b *body) text(name string) (s string, ok bool, err error) {
	if b.decoder.PeekKind() != '"' {
		b.fault(name, "must be a string")
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
		b.fault(name, "must not have half of a surrogate pair")
		return "", false, nil
	}
	return string(unquoted), true, nil
}

// integer reads a whole number from least to most.
func (b *body) integer(name string, least, most int64, into *int64) error {
	message := fmt.Sprintf
	if b.decoder.PeekKind() != '0' {
		b.fault(name, message("must be a whole number from %d to %d", least, most))
		return b.decoder.SkipValue()
	}
	value, err := b.decoder.ReadValue()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		// 3.0 and 1e2 are whole numbers too, to JSON Schema and to JavaScript.
		f, floatErr := strconv.ParseFloat(string(value), 64)
		if n = int64(f); floatErr != nil || f < float64(least) || f > float64(most) || float64(n) != f {
			b.fault(name, message("must be a whole number from %d to %d", least, most))
			return nil
		}
	}
	if n < least || n > most {
		b.fault(name, message("must be a whole number from %d to %d", least, most))
		return nil
	}
	*into = n
	return nil
}

// The bounds of what a request may say.
const (
	maxQuantity = 10_000
	maxKey      = 255
	maxTTL      = 86_400 // seconds
	defaultTTL  = 120    // seconds
	maxEvents   = 1_000
	// How far occurred_at may lie ahead (another clock) and back (a wrong unit or year).
	maxAhead = 5 * time.Minute
	maxBack  = 400 * 24 * time.Hour
)

func (b *body) email(name string, into *string) error {
	s, ok, err := b.text(name)
	if err != nil || !ok {
		return err
	}
	email, invalid := models.ParseEmail(s)
	if invalid != nil {
		b.fault(name, invalid.Error())
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
		b.fault(name, "must be a Slack id: "+models.SlackIDRule)
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
		b.fault(name, "must be 1 to 255 printable characters")
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

// PersonName is the part of a request that says whom it is about.
type PersonName struct {
	Email       string `json:"email,omitempty" doc:"The person's email address; trimmed and lower-cased. Needed unless both Slack ids name somebody known." example:"ada@example.com" maxLength:"254"`
	SlackTeamID string `json:"slack_team_id,omitempty" doc:"The Slack team, together with slack_user_id. A linked identity determines the person. With an email too, an unknown identity is linked." example:"T0123ABCD" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
	SlackUserID string `json:"slack_user_id,omitempty" doc:"The person's Slack user id, together with slack_team_id." example:"U0123ABCD" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
}

func personFields[T any](of func(*T) *PersonName) []field[T] {
	return []field[T]{
		{"email", false, func(b *body, name string, into *T) error { return b.email(name, &of(into).Email) }},
		{"slack_team_id", false, func(b *body, name string, into *T) error { return b.slackID(name, &of(into).SlackTeamID) }},
		{"slack_user_id", false, func(b *body, name string, into *T) error { return b.slackID(name, &of(into).SlackUserID) }},
	}
}

// whom notes what is missing to name a person. It is called when the object was read; before counts the faults found
// before that object, as a fault in it already says why a part is missing.
func (b *body) whom(p *PersonName, before int) enforcement.Person {
	if len(b.faults) == before {
		switch {
		case (p.SlackTeamID == "") != (p.SlackUserID == ""):
			missing := "slack_user_id"
			if p.SlackTeamID == "" {
				missing = "slack_team_id"
			}
			b.fault(missing, "is required: a Slack user id is unique only within its team")
		case p.Email == "" && p.SlackTeamID == "":
			b.fault("email", "is required, or slack_team_id and slack_user_id together")
		}
	}
	return enforcement.Person{Email: p.Email, Slack: models.SlackIdentity{TeamID: p.SlackTeamID, UserID: p.SlackUserID}}
}

// noBody accepts an empty body, of whatever type and also without its length beforehand, or an empty JSON object.
func (s *Server) noBody(c echo.Context) error {
	r := c.Request()
	if r.ContentLength < 0 {
		start := bufio.NewReader(r.Body)
		if _, err := start.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		r.Body = io.NopCloser(start) // net/http closes its own
	}
	if r.ContentLength == 0 {
		return nil
	}
	return s.decode(c, maxBody, func(b *body) error { return readObject(b, nil, &struct{}{}) })
}

// lift makes the fields of an embedded struct those of the outer one.
func lift[Outer, Inner any](fields []field[Inner], of func(*Outer) *Inner) []field[Outer] {
	lifted := make([]field[Outer], len(fields))
	for i, f := range fields {
		lifted[i] = field[Outer]{f.name, f.required, func(b *body, name string, into *Outer) error { return f.read(b, name, of(into)) }}
	}
	return lifted
}
