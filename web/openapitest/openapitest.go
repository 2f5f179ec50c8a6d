// Package openapitest validates requests and answers of tests against an OpenAPI document.
//
// The compiler takes half a minute for the validator's generic types. It compiles them once for
// this package, and not again for the packages that import it, because the declarations here have
// none of the validator's types.
package openapitest

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	failures "github.com/pb33f/libopenapi-validator/errors"
)

// Document is an OpenAPI document.
type Document struct {
	// Validate returns the errors of the document itself.
	Validate func() error
	// ValidateRequest returns how a request differs from the document.
	ValidateRequest func(*http.Request) error
	// ValidateResponse returns how the answer to a request differs from the document.
	ValidateResponse func(*http.Request, *http.Response) error
}

// Read parses a document.
func Read(content []byte) (*Document, error) {
	document, err := libopenapi.NewDocument(content)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(document)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Document{
		Validate:        func() error { return failed(v.ValidateDocument()) },
		ValidateRequest: func(r *http.Request) error { return failed(v.ValidateHttpRequest(r)) },
		ValidateResponse: func(r *http.Request, answer *http.Response) error {
			return failed(v.ValidateHttpResponse(r, answer))
		},
	}, nil
}

// failed joins all errors.
func failed(ok bool, list []*failures.ValidationError) error {
	if ok && len(list) == 0 {
		return nil
	}
	errs := []error{errors.New("invalid")}
	for _, e := range list {
		errs = append(errs, e)
		for _, s := range e.SchemaValidationErrors {
			errs = append(errs, fmt.Errorf("  %s: %s", s.FieldPath, s.Reason))
		}
	}
	return errors.Join(errs...)
}
