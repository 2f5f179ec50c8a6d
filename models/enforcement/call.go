package enforcement

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// Person names whom a call is about: by email, by Slack identity, or by both, which links the two.
type Person struct {
	// Email is trimmed and in lower case (models.ParseEmail); empty when only Slack's identity is known.
	Email string
	// Slack is the zero value when only the email is known.
	Slack models.SlackIdentity

	// id is the user that this names, once that is known, and label the user's own email.
	id    uuid.UUID
	label string
}

// Answer is what the gate decided, and what it recorded.
type Answer struct {
	// Standing is the person's after the decision.
	Standing models.Standing
	Verdict  models.Verdict
	// EventID is zero when nothing was recorded.
	EventID uuid.UUID
	// Replayed says that this is the answer to an earlier call with the same key.
	Replayed bool
	// Hold is nil when the call is not about a hold, or was refused one.
	Hold *models.UsageHold
}

// PastEvent is something that was done already and must be recorded, whatever the limit.
type PastEvent struct {
	Person         Person
	Quantity       int64
	IdempotencyKey string
	// OccurredAt says in which billing period it counts.
	OccurredAt time.Time
}

type kind uint8

const (
	consume kind = iota
	record
	hold
	settle
	release
)

// op is one unit of work of a group. The fields below the line are the gate's.
type op struct {
	kind     kind
	person   Person
	quantity int64
	key      string
	at       time.Time // record: when it occurred
	ttl      time.Duration
	holdID   uuid.UUID

	want    models.Want // the record that it acts on
	account *account
	linked  bool // the person is the one that the Slack identity of the call names
	// unlinked means that the person has no Slack identity, and the call does not give them one: see models.LinkedPerson.NotLinked.
	unlinked bool
	unknown  bool // it names no person or hold: err says so, and nothing is decided
	answer   Answer
	err      error
}

// call is what one caller waits for: ops that are decided together or not at all.
type call struct {
	ctx  context.Context
	ops  []op
	one  [1]op
	err  error
	done chan ending
	// until is when the caller must have an answer.
	until time.Time
	// left means that the caller was answered while the worker still held the call. The queue's mutex guards it.
	left bool
}

// ending is how a call ended.
type ending uint8

const (
	decided  ending = iota // by the worker, which wrote the answer or the error into the call
	waited                 // in the queue for too long; no worker has seen it
	givenUp                // while the worker still holds it
	released               // with an error, before the rest of its group was decided
)

// identifyWithin gives the entries of a batch that name a person by a Slack identity alone the email of an earlier one with the same
// identity, as that one may link it: a batch is recorded in its order.
func (c *call) identifyWithin() {
	if len(c.ops) == 1 {
		return
	}
	emails := map[models.SlackIdentity]string{}
	for i := range c.ops {
		p := &c.ops[i].person
		switch {
		case p.Slack == (models.SlackIdentity{}):
		case p.Email == "":
			p.Email = emails[p.Slack]
		default:
			emails[p.Slack] = p.Email
		}
	}
}

func (c *call) fail(err error) {
	c.err = err
}
