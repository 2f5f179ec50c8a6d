package enforcement

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// Person identifies the person of a call: by email, by Slack identity, or by both, which links the
// two.
type Person struct {
	// Email is normalized (models.ParseEmail); empty if only the Slack identity is known.
	Email string
	// Slack is the zero value if only the email is known.
	Slack models.SlackIdentity
}

// Answer is the gate's decision and what it recorded.
type Answer struct {
	// Standing is the person's standing after the decision.
	Standing models.Standing
	Verdict  models.Verdict
	// EventID is the zero value if nothing was recorded.
	EventID uuid.UUID
	// Message means that this answer is the first of the usage record at the standing's warning level.
	// A retry gets the same value.
	Message bool
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
	// OccurredAt decides in which billing period the usage counts.
	OccurredAt time.Time
}

type kind uint8

const (
	consume kind = iota
	record
	hold
	settle
	release
	check // only in metrics: the gate decides a check as a consume that records nothing
)

// request is a caller's request. It never changes.
type request struct {
	kind     kind
	person   Person
	quantity int64
	key      string
	at       time.Time // record: when it occurred
	ttl      time.Duration
	holdID   uuid.UUID
	// silent means that the caller shows no message, so the answer cannot be the one with the message.
	silent bool
}

// CallOption changes a call.
type CallOption uint8

// Silent says that the caller shows the person no message. A later answer is the first at the
// warning level then.
const Silent CallOption = 1

// resolution is what the gate finds out about a request before it decides: the person and the
// record that it acts on. identify and prepare find the person, and bindAccounts finds the record.
type resolution struct {
	// email is the request's email, or that of an earlier entry of the batch with the same Slack
	// identity.
	email string
	// user is the request's person; the zero value until that is known. linked means that the
	// person has the request's Slack identity.
	user   models.LinkedPerson
	linked bool
	held   models.RecordKey // settle and release: the key of the hold's record
	// newIdentity means that no person has the request's Slack identity. It is known only for events
	// that may be too late.
	newIdentity bool
	// unknown means that the request's person or hold does not exist, or that a late event is refused
	// before its person or record is created. err says so, and nothing is decided.
	unknown bool
	account *account
}

// op is one unit of work of a group: a request, its resolution and its outcome.
type op struct {
	request
	resolution

	answer Answer
	err    error
	// lapsed is the ID of the organization's record whose expired holds must be counted again
	// before the op is decided; otherwise 0.
	lapsed int64
}

// recordKey returns the key of the record that the op acts on, if it is decided at now.
func (o *op) recordKey(now time.Time) models.RecordKey {
	switch o.kind {
	case settle, release:
		return o.held
	case record:
		return o.recordAt(o.at)
	}
	return o.recordAt(now)
}

// recordAt returns the key of the person's record at the given time.
func (o *op) recordAt(at time.Time) models.RecordKey {
	if o.user.UserID != uuid.Nil {
		return models.RecordKey{UserID: o.user.UserID, Email: o.user.Email, At: at}
	}
	return models.RecordKey{Email: o.email, At: at}
}

// idempotencyKey returns the idempotency key together with the person it belongs to.
func (o *op) idempotencyKey() keyOf[models.RecordKey] {
	return keyOf[models.RecordKey]{o.recordAt(time.Time{}), o.key}
}

// link returns the email and the Slack identity that the request links.
func (o *op) link() models.Link { return models.Link{Email: o.email, Slack: o.person.Slack} }

// name sets the person who has the request's Slack identity.
func (o *op) name(p models.LinkedPerson) { o.user, o.linked = p, true }

// mustLink reports whether the request's Slack identity differs from known, the person's identity
// in the database, so that it must be linked. A person who was identified only by the email must
// still have it: email is the person's current one; empty if it is unknown.
func (o *op) mustLink(known models.SlackIdentity, email string) bool {
	none := models.SlackIdentity{}
	return !o.linked && o.person.Slack != none && o.person.Slack != known &&
		(!o.user.NotLinked || known != none || email != o.user.Email)
}

// call is what one caller waits for. Its ops are decided in one transaction, or not at all.
type call struct {
	ctx  context.Context
	ops  []op
	one  [1]op
	err  error
	done chan ending
	// until is when the caller must have its answer.
	until time.Time
	// left means that the caller was answered while the worker still used the call. The queue's
	// mutex guards it.
	left bool
}

// ending is how a call ended.
type ending uint8

const (
	decided  ending = iota // the worker wrote the answer or the error into the call
	waited                 // it waited too long in the queue, and no worker has taken it
	givenUp                // it ran out of time while a worker used it
	released               // it failed before the rest of its group was decided
)

// resolveEmails sets the email of each op. An entry of a batch that has only a Slack identity gets
// the email of an earlier entry with the same identity, which may link the two. A batch is recorded
// in its order.
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
