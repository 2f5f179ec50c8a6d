package web

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestTheEncoderAgreesWithTheTypes compares appendDecision and the others with encoding/json and
// the document's types.
func TestTheEncoderAgreesWithTheTypes(t *testing.T) {
	catalogue, err := models.LoadCatalogue("")
	must(t, err)
	messages := testMessages(catalogue, &models.Situation{})
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Int64Range(0, 1_000_000)
		start := time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "start")).UTC()
		a := enforcement.Answer{
			Standing: models.Standing{
				Email: rapid.String().Draw(t, "email"), Plan: models.PlanID(rapid.SampledFrom([]string{"free", "pro", "gone"}).Draw(t, "plan")),
				Used: number.Draw(t, "used"), OverageCents: number.Draw(t, "cents"), Held: number.Draw(t, "held"), Included: number.Draw(t, "included"),
				OverageRateCents: rapid.Int64Range(0, 100).Draw(t, "rate"), Period: models.Period{Start: start, End: start.Add(31 * 24 * time.Hour)},
			},
			Replayed: rapid.Bool().Draw(t, "replayed"),
		}
		a.Standing.Overage = rapid.Int64Range(0, a.Standing.Used).Draw(t, "overage")
		if rapid.Bool().Draw(t, "limited") {
			limit := number.Draw(t, "limit")
			a.Standing.SpendLimitCents, a.Standing.MemberLimit = &limit, &limit
		}
		a.Verdict = models.Decide(a.Standing, rapid.Int64Range(1, 10_000).Draw(t, "quantity"))
		if rapid.Bool().Draw(t, "recorded") {
			a.EventID = uuid.New()
		}
		if rapid.Bool().Draw(t, "held") {
			a.Hold = &models.UsageHold{ID: uuid.New(), Quantity: number.Draw(t, "hold"), State: models.HoldOpen, ExpiresAt: start}
		}
		written := appendDecision(nil, catalogue, messages, &a, "https://tollgate.example.com/usage", models.NotifyAlways)
		written = appendHold(appendEvent(written, &a), a.Hold)
		written = append(written, '}')

		var got, want map[string]any
		if err := json.Unmarshal(written, &got); err != nil {
			t.Fatalf("not JSON: %v\n%s", err, written)
		}
		reference, err := json.Marshal(answerOf(catalogue, messages, &a))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(reference, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("written  %s\nwanted   %s", written, reference)
		}
	})
}

// answerOf returns the same answer, built from the types alone.
func answerOf(c *models.Catalogue, messages *slackMessages, a *enforcement.Answer) settleAnswer {
	s := a.Standing
	d := settleAnswer{ConsumeAnswer: ConsumeAnswer{Replayed: a.Replayed, Decision: Decision{
		Allowed: a.Verdict.Allowed, WarningLevel: string(s.Level()), Email: s.Email, Plan: string(s.Plan), Used: s.Used, Held: s.Held,
		Included:  s.Included,
		Remaining: s.Remaining(), PercentUsed: s.PercentUsed(), Overage: s.Overage, OverageRateCents: s.OverageRateCents,
		OverageCents:    s.OverageCents,
		SpendLimitCents: s.SpendLimitCents, MemberLimit: s.MemberLimit, Period: period(s.Period),
		UsageURL: "https://tollgate.example.com/usage",
	}}}
	if a.Verdict.Reason != "" {
		reason := string(a.Verdict.Reason)
		d.Reason = &reason
	}
	if a.EventID != (uuid.UUID{}) {
		id := a.EventID.String()
		d.EventID = &id
	}
	if a.Hold != nil {
		d.Hold = &holdBody{ID: a.Hold.ID.String(), Quantity: a.Hold.Quantity, State: string(a.Hold.State), ExpiresAt: a.Hold.ExpiresAt}
	}
	if notice := c.Notice(s, a.Verdict); notice != "" {
		d.Notice = &notice
		m := messages.message(&s, a.Verdict, notice, &models.Situation{})
		d.Slack = &m
	}
	return d
}
