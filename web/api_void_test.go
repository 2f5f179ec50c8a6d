package web

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestVoid(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const consume = `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "a"}`
		const body = `{"email": "Ada@example.com", "idempotency_key": "a", "reason": "sent twice"}`
		event := f.post("/v1/consume", consume)
		event.want(t, 200, map[string]any{"used": 3})
		id := event.body["event_id"]
		voided := map[string]any{
			"allowed": true, "used": 0, "remaining": 5, "event_id": id, "voided.quantity": 3, "voided.overage": 0,
			"voided.overage_cents": 0, "voided.reason": "sent twice", "voided.voided_at": f.clock().UTC().Format(time.RFC3339Nano),
			"replayed": false,
		}
		f.post("/v1/void", body).want(t, 200, voided)
		f.post("/v1/consume", `{"email": "ada@example.com", "idempotency_key": "b"}`).want(t, 200, map[string]any{"used": 1})
		voided["replayed"] = true
		f.post("/v1/void", strings.Replace(body, "twice", "again", 1)).want(t, 200, voided)
		f.post("/v1/consume", consume).want(t, 200, map[string]any{"used": 3, "replayed": true, "event_id": id})
		if lines := f.audited("event.void"); len(lines) != 1 ||
			!strings.Contains(lines[0], "3 suggestions of ada@example.com, with $0.00 of overage: sent twice") {
			t.Errorf("the audit log has %q", lines)
		}

		held := f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 2, "idempotency_key": "h"}`)
		hold := fmt.Sprint(held.body["hold"].(map[string]any)["id"])
		byHold := fmt.Sprintf(`{"hold_id": %q, "reason": "r"}`, hold)
		f.post("/v1/void", byHold).want(t, 404, map[string]any{"code": "unknown_event"})
		f.post("/v1/holds/"+hold+"/settle", `{"quantity": 2}`).want(t, 200, nil)
		f.post("/v1/void", byHold).want(t, 200, map[string]any{"used": 1, "held": 0, "voided.quantity": 2})

		for body, code := range map[string]string{
			`"email": "bob@example.com", "idempotency_key": "a"`:                   "unknown_event",
			`"email": "ada@example.com", "idempotency_key": "h"`:                   "unknown_event",
			`"slack_team_id": "T1", "slack_user_id": "U1", "idempotency_key": "a"`: "unknown_user",
			`"hold_id": "` + uuid.NewString() + `"`:                                "unknown_hold",
		} {
			f.post("/v1/void", `{"reason": "r", `+body+`}`).want(t, 404, map[string]any{"code": code})
		}
		for body, field := range map[string]string{
			`"reason": "r", "email": "ada@example.com"`:                                   "idempotency_key",
			`"reason": "r", "idempotency_key": "a"`:                                       "email",
			`"email": "ada@example.com", "idempotency_key": "a"`:                          "reason",
			`"reason": "", "email": "ada@example.com", "idempotency_key": "a"`:            "reason",
			`"reason": "a\nb", "email": "ada@example.com", "idempotency_key": "a"`:        "reason",
			`"reason": "r", "hold_id": "1"`:                                               "hold_id",
			`"reason": "r", "hold_id": "` + hold + `", "idempotency_key": "a"`:            "idempotency_key",
			`"reason": "r", "hold_id": "` + hold + `", "email": "ada@example.com"`:        "hold_id",
			`"reason": "r", "slack_team_id": "T1", "idempotency_key": "a"`:                "slack_user_id",
			`"reason": "r", "email": "ada@example.com", "idempotency_key": "a", "x": "1"`: "x",
		} {
			f.post("/v1/void", "{"+body+"}").want(t, 422, map[string]any{"code": "invalid_request", "errors.path": field})
		}
		unscoped := withKey(f.newKey(models.ScopeCheck, models.ScopeRead))
		f.post("/v1/void", body, unscoped).want(t, 403, map[string]any{"code": "insufficient_scope"})
	})
}

// An event that is in a report to Stripe needs the scope manage.
func TestVoidOfAReportedEvent(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.post("/v1/consume", `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "a"}`).want(t, 200, nil)
		_, err := f.db.ExecContext(context.Background(), "UPDATE usage_events SET stripe_report_id = ?", uuid.NewString())
		must(t, err)
		const body = `{"email": "ada@example.com", "idempotency_key": "a", "reason": "sent twice"}`
		f.post("/v1/void", body, withKey(f.newKey(models.ScopeConsume))).want(t, 403, map[string]any{"code": "insufficient_scope"})
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{"used": 3})
		f.post("/v1/void", body, withKey(f.newKey(models.ScopeManage))).want(t, 403, map[string]any{"code": "insufficient_scope"})
		f.post("/v1/void", body, withKey(f.newKey(models.ScopeConsume, models.ScopeManage))).want(t, 200, map[string]any{"used": 0})
	})
}
