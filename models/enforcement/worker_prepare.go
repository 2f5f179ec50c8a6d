package enforcement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// identify finds the people of calls that have only a Slack identity, and the records of the holds
// to close. It returns the calls with at least one known person or hold.
func (w *worker) identify(calls []*call) []*call {
	var slack []models.SlackIdentity
	var holds []uuid.UUID
	now := models.Now(w.now)
	for _, c := range calls {
		c.resolveEmails()
		for i := range c.ops {
			switch o := &c.ops[i]; {
			case o.kind == settle || o.kind == release:
				holds = append(holds, o.holdID)
			case o.email == "" && !o.unknown:
				slack = append(slack, o.person.Slack)
			case o.user.UserID == uuid.Nil && o.person.Slack != (models.SlackIdentity{}):
				if known, ok := w.memory.people[o.link()]; ok && time.Now().Before(known.until) {
					o.user = known.person
				} else if o.mayBeTooLate(now) {
					slack = append(slack, o.person.Slack)
				}
			}
		}
	}
	if len(slack)+len(holds) == 0 {
		return calls
	}
	start := time.Now()
	ctx, cancel := w.inTime(calls)
	defer cancel()
	people, err := map[models.SlackIdentity]models.LinkedPerson{}, error(nil)
	if len(slack) > 0 {
		people, err = models.PeopleByIdentity(ctx, w.db, slack)
	}
	wants := map[uuid.UUID]models.RecordKey{}
	if len(holds) > 0 && err == nil {
		wants, err = models.RecordsOfHolds(ctx, w.db, holds)
	}
	if err != nil {
		if calls = w.failed(calls, err, start); len(calls) > 0 {
			return w.identify(calls)
		}
		return nil
	}
	var known []*call
	for _, c := range calls {
		some := false
		for i := range c.ops {
			o := &c.ops[i]
			var ok bool
			switch {
			case o.unknown: // it has its error
			case o.kind == settle || o.kind == release:
				if o.held, ok = wants[o.holdID]; !ok {
					o.unknown, o.err = true, errNoHold
				}
			case o.email == "":
				var p models.LinkedPerson
				if p, ok = people[o.person.Slack]; !ok {
					o.unknown, o.err = true, ErrUnknownUser
				}
				o.name(p)
			case o.user.UserID == uuid.Nil && o.mayBeTooLate(now):
				o.user, ok = people[o.person.Slack]
				o.newIdentity = !ok
			}
			some = some || !o.unknown
		}
		if some {
			known = append(known, c)
		}
	}
	return known
}

// prepare links people and prepares records. It returns the calls for which this succeeded.
func (w *worker) prepare(calls []*call) []*call {
	now := models.Now(w.now)
	if calls = w.expireHolds(calls, now); len(calls) == 0 {
		return nil
	}
	return w.prepareBisecting(calls, func(ctx context.Context, db *models.DB, calls []*call) error {
		var ops, linking []*op
		for _, c := range calls {
			for i := range c.ops {
				o := &c.ops[i]
				if o.unknown {
					continue
				}
				var known models.SlackIdentity
				var email string
				if o.account != nil {
					known, email = o.account.record.Slack(), o.account.record.Email
				}
				if o.mustLink(known, email) {
					linking = append(linking, o)
				}
				ops = append(ops, o)
			}
		}
		links, people := linksOf(linking), []models.LinkedPerson(nil)
		prepared, err := models.LinkAndPrepare(ctx, db, w.catalogue, now, links, func(linked []models.LinkedPerson) []models.RecordKey {
			people = linked
			for i, o := range linking {
				o.name(people[i])
			}
			wants := make([]models.RecordKey, len(ops))
			for i, o := range ops {
				wants[i] = o.recordKey(now)
			}
			slices.SortFunc(wants, compareWants)
			return slices.Compact(wants)
		})
		if err != nil {
			for _, o := range linking {
				o.user, o.linked = models.LinkedPerson{}, false // the links were rolled back
			}
			return err
		}
		w.remember(ctx, linking, people)
		w.memory.learn(prepared)
		return nil
	})
}

func linksOf(ops []*op) []models.Link {
	links := make([]models.Link, len(ops))
	for i, o := range ops {
		links[i] = o.link()
	}
	return links
}

// remember stores the people that the links of ops named, after the commit.
func (w *worker) remember(ctx context.Context, ops []*op, people []models.LinkedPerson) {
	for i, o := range ops {
		o.name(people[i])
		w.memory.name(o.link(), people[i], time.Now())
	}
	models.LogLinked(ctx, w.log, linksOf(ops), people)
}

// prepareBisecting prepares calls with do, and returns the calls for which this succeeded. If one
// call makes it fail, or if another transaction locks a row that one person needs, it tries each
// half separately, down to that call.
func (w *worker) prepareBisecting(calls []*call, do func(context.Context, *models.DB, []*call) error) []*call {
	start := time.Now()
	ctx, cancel := w.inTime(calls)
	defer cancel()
	if end, _ := ctx.Deadline(); time.Until(end) > 2*answersPatience {
		// The rest of the time is for checking whether the database answers.
		ctx, cancel = context.WithDeadline(ctx, end.Add(-answersPatience))
		defer cancel()
	}
	var half func(calls []*call, patience time.Duration) []*call
	half = func(calls []*call, patience time.Duration) []*call {
		err := do(ctx, w.db.WithLockTimeout(patience), calls)
		switch {
		case err == nil:
			return calls
		case models.IsLockTimeout(err):
			patience = partPatience
			err = errLocked
		case errors.Is(err, context.DeadlineExceeded) && time.Since(start) >= stalled && w.db.Postgres && w.answers():
			// The group waited for the locks of many people, one after another. The database
			// answers, so the calls in the queue can proceed.
			failAll(calls, errLocked)
			return nil
		case models.IsUnavailable(err):
			return w.failed(calls, err, start) // the next pass prepares them
		default:
			err = fmt.Errorf("prepare a call: %w", err)
		}
		if len(calls) == 1 {
			calls[0].fail(err)
			return nil
		}
		n := len(calls) / 2
		return append(half(calls[:n:n], patience), half(calls[n:], patience)...)
	}
	return half(calls, groupPatience)
}
