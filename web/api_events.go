package web

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// eventsRequest reports usage that already happened.
type eventsRequest struct {
	Events []eventBody `json:"events" minItems:"1" maxItems:"1000" nullable:"false" doc:"An invalid event does not affect the others."`
}

type eventBody struct {
	PersonName
	Quantity       int64     `json:"quantity" minimum:"1" maximum:"10000" doc:"Units used."`
	IdempotencyKey string    `json:"idempotency_key" minLength:"1" maxLength:"255" doc:"Identifies this work. A retry is not recorded again."`
	OccurredAt     time.Time `json:"occurred_at" doc:"RFC 3339, at most 400 days ago and 5 minutes ahead. Determines the billing period."`
}

var eventFields = append(personFields(func(e *eventBody) *PersonName { return &e.PersonName }),
	field[eventBody]{"quantity", true, func(b *body, name string, into *eventBody) error {
		return b.integer(name, 1, maxQuantity, &into.Quantity)
	}},
	field[eventBody]{"idempotency_key", true, func(b *body, name string, into *eventBody) error {
		return b.key(name, &into.IdempotencyKey)
	}},
	field[eventBody]{"occurred_at", true, func(b *body, name string, into *eventBody) error {
		return b.instant(name, &into.OccurredAt)
	}})

// instant matches RFC 3339's date-time. time.Parse accepts more: an hour of one digit, a comma, an
// offset of a day.
var instant = regexp.MustCompile(
	`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

type eventsAnswer struct {
	Results []eventResult `json:"results" nullable:"false" doc:"One result per event, in the same order."`
}

type eventResult struct {
	IdempotencyKey *string `json:"idempotency_key" doc:"The event's key; null if missing or invalid."`
	Status         string  `json:"status" enum:"recorded,duplicate,conflict,invalid" doc:"conflict: the key was used with another quantity."`
	EventID        *string `json:"event_id" format:"uuid" doc:"The event; for a duplicate, the first one. Null if conflict or invalid."`
	Error          *string `json:"error" doc:"What is wrong with the event; null if nothing is wrong."`
}

// events records a batch. An error in the batch as a whole is a problem; an error in one event is
// that event's result.
func (s *Server) events(c echo.Context) error {
	var results []eventResult
	var entries []enforcement.PastEvent
	var places []int // positions of the entries among the results
	now := s.now()
	lease := s.batchBodies.lease(c, 2)
	defer lease.close()
	err := decode(c, maxEventsBody, func(*body) *bodyLease { return &lease }, func(b *body) error {
		return readObject(b, []field[struct{}]{{"events", true, func(b *body, name string, _ *struct{}) error {
			return b.array(name, 1, maxEvents, func(i int) error {
				outer := b.fieldErrors
				b.fieldErrors = nil
				var e eventBody
				err := readObject(b, eventFields, &e)
				entry := enforcement.PastEvent{
					Person:         b.person(&e.PersonName),
					Quantity:       e.Quantity,
					IdempotencyKey: e.IdempotencyKey,
					OccurredAt:     e.OccurredAt,
				}
				switch {
				case len(b.fieldErrors) > 0:
				case e.OccurredAt.After(now.Add(maxAhead)):
					b.reject("occurred_at", "is more than 5 minutes in the future")
				case e.OccurredAt.Before(now.Add(-maxBack)):
					b.reject("occurred_at", "is more than 400 days in the past")
				}
				var result eventResult
				if e.IdempotencyKey != "" {
					result.IdempotencyKey = &e.IdempotencyKey
				}
				if len(b.fieldErrors) > 0 {
					first := b.fieldErrors[0]
					message := strings.TrimSpace(strings.TrimPrefix(first.Path, string(b.path)) + " " + first.Message)
					result.Status, result.Error = "invalid", &message
				} else {
					entries, places = append(entries, entry), append(places, i)
				}
				results = append(results, result)
				b.fieldErrors = outer
				return err
			})
		}}}, &struct{}{})
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	outcomes, err := s.gate.Record(ctx, entries)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		r := &results[places[i]]
		var refused *models.Error
		switch {
		case errors.As(o.Err, &refused) && refused.Code == models.CodeIdempotencyKeyReused:
			r.Status = "conflict"
		case refused != nil:
			r.Status = "invalid"
		case o.Answer.Replayed:
			r.Status = "duplicate"
		default:
			r.Status = "recorded"
		}
		if refused != nil {
			r.Error = &refused.Detail
		} else {
			id := o.Answer.EventID.String()
			r.EventID = &id
		}
	}
	return writeJSON(c, eventsAnswer{Results: results})
}

// array reads an array that has from least to most elements.
func (b *body) array(name string, least, most int, element func(i int) error) error {
	message := fmt.Sprintf("must be an array of %d to %d elements", least, most)
	if b.decoder.PeekKind() != '[' {
		b.reject(name, message)
		return b.decoder.SkipValue()
	}
	if _, err := b.decoder.ReadToken(); err != nil {
		return err
	}
	n, path := 0, len(b.path)
	for ; b.decoder.PeekKind() != ']'; n++ {
		if n >= most {
			if err := b.decoder.SkipValue(); err != nil {
				return err
			}
			continue
		}
		b.path = append(strconv.AppendInt(append(append(b.path[:path], name...), '['), int64(n), 10), "]."...)
		if err := element(n); err != nil {
			return err
		}
	}
	b.path = b.path[:path]
	if n < least || n > most {
		b.reject(name, message)
	}
	_, err := b.decoder.ReadToken()
	return err
}
