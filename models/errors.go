package models

import (
	"fmt"
	"runtime/debug"
	"time"
)

// Code is the code of an error. The API uses the same codes.
type Code string

// The codes of errors that a caller causes, of the two temporary ones, and of sign-in errors, which
// only pages show.
const (
	CodeInvalidRequest       Code = "invalid_request"
	CodeUnknownUser          Code = "unknown_user"
	CodeUnknownOrganization  Code = "unknown_organization"
	CodeUnknownHold          Code = "unknown_hold"
	CodeUnknownEvent         Code = "unknown_event"
	CodeIdempotencyKeyReused Code = "idempotency_key_reused"
	CodeHoldSettled          Code = "hold_settled"
	CodeHoldReleased         Code = "hold_released"
	CodeHoldExpired          Code = "hold_expired"
	CodeChangedMeanwhile     Code = "changed_meanwhile"
	CodeUnavailable          Code = "unavailable"
	CodeOverloaded           Code = "overloaded"
	CodeUnknownLink          Code = "unknown_link"
	CodeSignInRefused        Code = "sign_in_refused"
)

// Error is an error with a code. Its text may be shown to the caller.
type Error struct {
	Code   Code
	Detail string
	// Path is the JSON path of the invalid field; empty if it is not about one field.
	Path string
	// RetryAfter is how long to wait before a retry; zero if waiting does not help.
	RetryAfter time.Duration
	// DatabaseAway means that the database is unreachable, full or stalled.
	DatabaseAway bool
	// Cause is for the log, and never shown to the caller.
	Cause error
}

func (e *Error) Error() string {
	text := string(e.Code) + ": "
	if e.Code == CodeInvalidRequest && e.Path != "" {
		text += e.Path + " " // the detail begins with a verb
	}
	text += e.Detail
	if e.Cause != nil {
		return text + ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

// Unavailable returns the error for a database that is unreachable, full or stalled.
func Unavailable(cause error) *Error {
	return &Error{
		Code: CodeUnavailable, Detail: "The database does not answer; try again.", RetryAfter: time.Second, DatabaseAway: true, Cause: cause,
	}
}

// Recovered returns f with a panic as its error. Otherwise, a panic in a goroutine of its own would end
// the process.
func Recovered(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return f()
	}
}
