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
}

// Answer is what the gate decided and recorded.
type Answer struct {
	// Standing is the person's standing after the decision.
	Standing models.Standing
	Verdict  models.Verdict
	// EventID is the zero value if nothing was recorded.
	EventID uuid.UUID
	// Replayed means that this is the answer to an earlier call with the same key.
	Replayed bool
	// Hold is nil if the call is not about a hold, or if the hold was refused.
	Hold *models.UsageHold
}

// PastEvent is usage that already happened. It is recorded even beyond a limit.
type PastEvent struct {
	Person         Person
	Quantity       int64
	IdempotencyKey string
	// OccurredAt decides in which billing period it counts.
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

// request is what a caller asks for. It never changes.
type request struct {
	kind     kind
	person   Person
	quantity int64
	key      string
	at       time.Time // record: when it occurred
	ttl      time.Duration
	holdID   uuid.UUID
}

// resolution is what the gate finds out about a request before it decides: whose record it acts on, and that record. identify and
// prepare find the person, bindAccounts the record.
type resolution struct {
	// email names the person: the request's, or that of an earlier entry of the batch with the same Slack identity.
	email string
	// user is whom the request names; the zero value until that is known. linked means that the request's Slack identity names them.
	user   models.LinkedPerson
	linked bool
	held   models.RecordKey // settle and release: the hold's record
	// unknown means that the request names no person or hold: err says so, and nothing is decided.
	unknown bool
	account *account
}

// op is one unit of work of a group: a request, what is known of it, and its outcome.
type op struct {
	request
	resolution

	answer Answer
	err    error
}

// recordKey is the key of the record that the op acts on, if it is decided at now.
func (o *op) recordKey(now time.Time) models.RecordKey {
	switch o.kind {
	case settle, release:
		return o.held
	case record:
		return o.recordAt(o.at)
	}
	return o.recordAt(now)
}

// recordAt is the key of the person's record at an instant.
func (o *op) recordAt(at time.Time) models.RecordKey {
	if o.user.UserID != uuid.Nil {
		return models.RecordKey{UserID: o.user.UserID, Email: o.user.Email, At: at}
	}
	return models.RecordKey{Email: o.email, At: at}
}

// idempotencyKey is the key of an event or a hold.
func (o *op) idempotencyKey() keyOf[models.RecordKey] {
	return keyOf[models.RecordKey]{o.recordAt(time.Time{}), o.key}
}

// link is what the request says of its person.
func (o *op) link() models.Link { return models.Link{Email: o.email, Slack: o.person.Slack} }

// name notes whom the request's Slack identity names.
func (o *op) name(p models.LinkedPerson) { o.user, o.linked = p, true }

// mustLink reports whether the request's Slack identity differs from the one that the database has of the person.
func (o *op) mustLink(known models.SlackIdentity) bool {
	none := models.SlackIdentity{}
	return !o.linked && o.person.Slack != none && o.person.Slack != known && (!o.user.NotLinked || known != none)
}

// call is what one caller waits for: ops that are decided together, or not at all.
type call struct {
	ctx  context.Context
	ops  []op
	one  [1]op
	err  error
	done chan ending
	// until is when the caller must have its answer.
	until time.Time
	// left means that the caller was answered while the worker still held the call. The queue's mutex guards it.
	left bool
}

// ending is how a call ended.
type ending uint8

const (
	decided  ending = iota // by the worker, which wrote the answer or the error into the call
	waited                 // too long in the queue; no worker has taken it
	givenUp                // while a worker still has it
	released               // with an error, before the rest of its group was decided
)

// resolveEmails sets the email of each op. An entry of a batch that names a person only by a Slack identity gets the email of an
// earlier entry with the same identity, which may link it: a batch is recorded in its order.
func (c *call) resolveEmails() {
	if len(c.ops) == 1 {
		c.ops[0].email = c.ops[0].person.Email
		return
	}
	emails := map[models.SlackIdentity]string{}
	for i := range c.ops {
		o := &c.ops[i]
		o.email = o.person.Email
		switch {
		case o.person.Slack == (models.SlackIdentity{}):
		case o.email == "":
			o.email = emails[o.person.Slack]
		default:
			emails[o.person.Slack] = o.email
		}
	}
}

func (c *call) fail(err error) {
	c.err = err
}
