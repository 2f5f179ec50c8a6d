package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"tollgate/models"
)

// TestGrantExpires: --expires is a time in RFC 3339, and the error for another one has an example.
func TestGrantExpires(t *testing.T) {
	for text, wrong := range map[string]string{
		"2026-12-24T18:00:00+01:00": "", "tomorrow": "--expires", "2026-12-24": "must be a time such as 2026-11-30T12:00:00Z, not \"2026-12-24\"",
	} {
		var c grantCommand
		parser, err := kong.New(&c, HelpTexts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse([]string{"ada@example.com", "--quantity=3", "--reason=outage", "--expires=" + text})
		switch {
		case wrong != "":
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: %v, want %q", text, err, wrong)
			}
		case err != nil || !c.Expires.Equal(time.Date(2026, 12, 24, 17, 0, 0, 0, time.UTC)):
			t.Errorf("%s: %v, %v", text, c.Expires, err)
		}
	}
}

func TestGrantAndVoid(t *testing.T) {
	db, err := models.Open(t.Context(), "sqlite:"+t.TempDir()+"/tollgate.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	o := &Output{Stdout: &stdout, Stderr: &stderr}
	grant := grantCommand{Email: " Ada@Example.com ", Quantity: 3, Reason: "outage"}
	if err := grant.Run(t.Context(), o, db, catalogue); err != nil {
		t.Fatal(err)
	}
	_, err = uuid.Parse(strings.TrimSpace(stdout.String()))
	if err != nil || stderr.String() != "ada@example.com has used 0 of 8 included units.\n" {
		t.Errorf("grant printed %q and noted %q", stdout.String(), stderr.String())
	}
	grant.Quantity = 0
	if err := grant.Run(t.Context(), o, db, catalogue); err == nil || !strings.Contains(err.Error(), "quantity must be 1 to 1000000") {
		t.Errorf("a grant of nothing: %v", err)
	}

	hold := uuid.New()
	for _, test := range []struct {
		c    voidCommand
		want string
	}{
		{voidCommand{Email: "ada@example.com", Key: "k", Reason: "r"}, "unknown_event"},
		{voidCommand{Hold: &hold, Reason: "r"}, "unknown_hold"},
		{voidCommand{Hold: &hold, Email: "ada@example.com", Reason: "r"}, "give either EMAIL and KEY or --hold"},
		{voidCommand{Email: "ada@example.com", Reason: "r"}, "missing KEY: give the event's idempotency key after the email"},
		{voidCommand{Reason: "r"}, "missing EMAIL and KEY"},
		{voidCommand{Email: "ada", Key: "k", Reason: "r"}, "ada"},
	} {
		if err := test.c.Run(t.Context(), o, db, catalogue); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.c, err, test.want)
		}
	}

	ctx := t.Context()
	var r models.UsageRecord
	if err := db.NewSelect().Model(&r).Scan(ctx); err != nil {
		t.Fatal(err)
	}
	s, _ := catalogue.Standing(&r, now())
	s.Add(2, models.Verdict{})
	e := models.UsageEvent{
		ID: uuid.New(), UserID: r.UserID, RecordID: r.ID, Email: r.Email, Quantity: 2, IdempotencyKey: new("k"), OccurredAt: now(),
		RecordedAt: now(), Figures: s.Figures(),
	}
	if _, err := db.NewInsert().Model(&e).Exec(ctx); err != nil {
		t.Fatal(err)
	}
	r.SuggestionsUsed, r.Daily = 2, r.Daily.Add(models.DayOf(r.BillingPeriodStart, now()), 2)
	if _, err := db.NewUpdate().Model(&r).WherePK().Exec(ctx); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"2 suggestions no longer count for ada@example.com.\n",
		"The event was already voided: 2 suggestions no longer count for ada@example.com.\n",
	} {
		stdout.Reset()
		stderr.Reset()
		if err := (&voidCommand{Email: "ada@example.com", Key: "k", Reason: "twice"}).Run(ctx, o, db, catalogue); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != e.ID.String()+"\n" || stderr.String() != want {
			t.Errorf("void %d printed %q and noted %q", i, stdout.String(), stderr.String())
		}
	}
	if err := models.Verify(ctx, db, func(d models.Difference) { t.Error(d) }); err != nil {
		t.Error(err)
	}
}

// A void says whether Tollgate takes the overage back, or the operator may have to credit it. If the
// event was already voided, it does not say so again, because the operator may have credited it.
func TestVoidNote(t *testing.T) {
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	void := func(cents int64, state models.VoidState, replayed bool) models.Voided {
		return models.Voided{
			Void: models.UsageVoid{
				UserID: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Email: "ada@example.com",
				Quantity: 3, OverageQuantity: cents / 30, OverageCents: cents, State: state,
				Figures: models.Figures{BillingPeriodStart: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)},
			},
			Replayed: replayed,
		}
	}
	const counts, credit = "3 suggestions no longer count for ada@example.com.", "credit it yourself"
	const takes = "Tollgate takes it back or asks you to credit it. The page " +
		"/ops/people/01890a5d-ac96-774b-bcce-b302099a8057/activity?period=2026-10 shows which."
	for _, test := range []struct {
		voided      models.Voided
		want        string
		tells, nots []string
	}{
		{void(0, models.VoidNotReported, false), counts, nil, []string{"overage"}},
		{void(60, models.VoidNotReported, false), counts, []string{"The overage of $0.60 is in no report to Stripe", credit}, []string{takes}},
		{void(60, models.VoidWaiting, false), counts, []string{"The overage of $0.60 is already in a report to Stripe", takes}, []string{credit}},
		{void(60, models.VoidNotReported, true), "The event was already voided: " + counts, nil, []string{credit, takes}},
	} {
		note := voidNote(catalogue, &test.voided)
		if !strings.HasPrefix(note, test.want) {
			t.Errorf("%+v: %q does not begin with %q", test.voided.Void, note, test.want)
		}
		for _, tell := range test.tells {
			if !strings.Contains(note, tell) {
				t.Errorf("%+v: %q does not say %q", test.voided.Void, note, tell)
			}
		}
		for _, not := range test.nots {
			if strings.Contains(note, not) {
				t.Errorf("%+v: %q says %q", test.voided.Void, note, not)
			}
		}
	}
}
