package models

import "time"

// Code names a kind of fault. The API answers with it as it is written here.
type Code string

// The faults that a caller can bring about, the two that it can only wait out, and those of signing in, which only pages tell of.
const (
	CodeInvalidRequest       Code = "invalid_request"
	CodeUnknownUser          Code = "unknown_user"
	CodeUnknownOrganization  Code = "unknown_organization"
	CodeUnknownHold          Code = "unknown_hold"
	CodeIdempotencyKeyReused Code = "idempotency_key_reused"
	CodeHoldSettled          Code = "hold_settled"
	CodeHoldReleased         Code = "hold_released"
	CodeHoldExpired          Code = "hold_expired"
	CodeUnavailable          Code = "unavailable"
	CodeOverloaded           Code = "overloaded"
	CodeUnknownLink          Code = "unknown_link"
	CodeSignInRefused        Code = "sign_in_refused"
)

// Error is a fault with a code. Its text is fit for the caller to read.
type Error struct {
	Code   Code
	Detail string
	// Path is the JSON path of the field at fault, where it is one field's.
	Path string
	// RetryAfter is how long to wait before the next try; zero where waiting does not help.
	RetryAfter time.Duration
	// DatabaseAway means that the database is unreachable, full or stalled.
	DatabaseAway bool
	// Cause is for the log, never for the caller.
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return string(e.Code) + ": " + e.Detail + ": " + e.Cause.Error()
	}
	return string(e.Code) + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Cause }

// Unavailable returns the error for a database that is unreachable, full or stalled.
func Unavailable(cause error) *Error {
	return &Error{
		Code: CodeUnavailable, Detail: "The database does not answer; try again.", RetryAfter: time.Second, DatabaseAway: true, Cause: cause,
	}
}
