package cli

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
)

type voidCommand struct {
	Email  string     `arg:"" optional:"" help:"The person's email address, or the address that 'user erase' printed for an erased person."`
	Key    string     `arg:"" optional:"" help:"The event's idempotency key. For an erased person, it is the event's ID."`
	Hold   *uuid.UUID `placeholder:"ID" help:"Void the event that settled this hold. Use it instead of EMAIL and KEY."`
	Reason string     `required:"" help:"The reason, which is shown in the audit log and in the person's activity."`
}

// Run voids an event and prints its ID. Nothing changes if it is voided already.
func (c *voidCommand) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	v := models.NewVoid{Actor: models.ActorShell, IdempotencyKey: c.Key, Reason: c.Reason, Reported: true}
	switch {
	case c.Hold != nil && c.Email != "":
		return errors.New("give either EMAIL and KEY or --hold")
	case c.Hold != nil:
		v.HoldID = *c.Hold
	case c.Email != "" && c.Key == "":
		return errors.New("missing KEY: give the event's idempotency key after the email")
	case c.Key == "":
		return errors.New("missing EMAIL and KEY: give the person and the event's idempotency key, or --hold")
	default:
		email, err := models.ParseEmail(c.Email)
		if err != nil { // it may be the label of an erased person
			erased, unknown := models.UserByLabel(ctx, db, c.Email)
			if unknown != nil {
				return unknown
			}
			v.UserID = erased.ID
		}
		v.Email = email
	}
	voided, err := models.Void(ctx, db, catalogue, now(), v)
	if err != nil {
		return err
	}
	o.Note("%s", voidNote(catalogue, &voided))
	return o.Print(voided.Void.EventID)
}

// voidNote says what a void did, and what happens to overage.
func voidNote(catalogue *models.Catalogue, voided *models.Voided) string {
	done := &voided.Void
	verb := "count"
	if done.Quantity == 1 {
		verb = "counts"
	}
	note := catalogue.Units(done.Quantity) + " no longer " + verb + " for " + done.Email + "."
	switch overage := catalogue.FormatMoney(done.OverageCents); {
	case voided.Replayed:
		note = "The event was already voided: " + note
	case done.OverageCents == 0:
	case done.State == models.VoidNotReported:
		note += " The overage of " + overage + " is in no report to Stripe, so Stripe does not bill it. If you have billed it by hand, " +
			"credit it yourself."
	default:
		note += " The overage of " + overage + " is already in a report to Stripe. If Stripe bills it, Tollgate takes it back or asks " +
			"you to credit it. The page " + views.PathOpsVoided(done) + " shows which."
	}
	return note
}
