package client

import (
	"errors"
	"net/http"
	"strconv"
)

// Codes that the client itself gives to errors. The others are the API's.
const (
	// CodeUnavailable means that Tollgate gave no usable answer.
	CodeUnavailable = "unavailable"
	// CodeSpoolFailed means that the spool could not be written.
	CodeSpoolFailed = "spool_failed"
	// CodeUnexpectedAnswer means that the answer is not Tollgate's.
	CodeUnexpectedAnswer = "unexpected_answer"
	codeHoldExpired      = "hold_expired"
)

// Error is an error answer of Tollgate, or a call without a usable answer.
type Error struct {
	Code   string       `json:"code"`
	Status int          `json:"status"` // 0 without an answer
	Detail string       `json:"detail"`
	Errors []FieldError `json:"errors"`
	Cause  error        `json:"-"`
}

// FieldError names an invalid field of a request.
type FieldError struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	text := e.Code + ": " + e.Detail
	if e.Status != 0 {
		text = "status " + strconv.Itoa(e.Status) + ": " + text
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

var errKeyReused = &Error{
	Code: "idempotency_key_reused", Status: http.StatusConflict, Detail: "this key was used with another quantity",
}

// CodeOf returns the code of an Error, or an empty string.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func isUnavailable(err error) bool { return CodeOf(err) == CodeUnavailable }
