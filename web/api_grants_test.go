package web

import (
	"fmt"
	"strings"
	"testing"

	"tollgate/models"
)

func TestGrants(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		key := withKey(f.newKey(models.ScopeManage))
		grant := func(body string) answer { return f.post("/v1/grants", body, key) }
		f.post("/v1/consume", `{"email": "ada@example.com", "quantity": 5, "idempotency_key": "a"}`).want(t, 200, nil)
		const body = `{"email": "Ada@example.com", "quantity": 3, "reason": "outage of Nov 20", "idempotency_key": "g"}`
		first := grant(body)
		first.want(t, 200, map[string]any{
			"allowed": true, "reason": nil, "used": 5, "included": 8, "remaining": 3, "replayed": false, "grant.quantity": 3,
			"grant.reason": "outage of Nov 20", "grant.expires_at": "2026-12-01T00:00:00Z",
		})
		grant(body).want(t, 200, map[string]any{"included": 8, "replayed": true, "grant.expires_at": "2026-12-01T00:00:00Z"})
		grant(strings.Replace(body, "3", "4", 1)).want(t, 409, map[string]any{"code": "idempotency_key_reused"})
		f.post("/v1/consume", `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "b"}`).want(t, 200, map[string]any{"allowed": true})
		if lines := f.audited("grant.create"); len(lines) != 1 || !strings.Contains(lines[0], "3 units until the period ends: outage of Nov 20") {
			t.Errorf("the audit log has %q", lines)
		}

		grant(`{"slack_team_id": "T1", "slack_user_id": "U1", "quantity": 1, "reason": "r"}`).want(t, 404, map[string]any{"code": "unknown_user"})
		grant(`{"email": "bob@example.com", "slack_team_id": "T1", "slack_user_id": "U1", "quantity": 1, "reason": "r",
			"expires_at": "2026-11-29t00:00:00z"}`).want(t, 200, map[string]any{
			"email": "bob@example.com", "included": 6, "grant.expires_at": "2026-11-29T00:00:00Z",
		})
		grant(`{"slack_team_id": "T1", "slack_user_id": "U1", "quantity": 1, "reason": "r"}`).want(t, 200, map[string]any{
			"email": "bob@example.com", "included": 7,
		})
		for field, invalid := range map[string]string{
			"quantity": `"quantity": 0, "reason": "r"`, "reason": `"quantity": 1, "reason": ""`, "email": `"quantity": 1, "reason": "r"`,
			"expires_at":      `"email": "ada@example.com", "quantity": 1, "reason": "r", "expires_at": "tomorrow"`,
			"idempotency_key": `"email": "ada@example.com", "quantity": 1, "reason": "r", "idempotency_key": ""`,
		} {
			grant("{"+invalid+"}").want(t, 422, map[string]any{"errors.path": field})
		}
		for _, late := range []string{"2020-01-01T00:00:00Z", "2026-12-01T00:00:00.000001Z"} {
			grant(fmt.Sprintf(`{"email": "ada@example.com", "quantity": 1, "reason": "r", "expires_at": %q}`, late)).
				want(t, 422, map[string]any{"errors.path": "expires_at"})
		}
		f.post("/v1/grants", body, withKey(f.newKey(models.ScopeCheck, models.ScopeConsume, models.ScopeRead))).
			want(t, 403, map[string]any{"code": "insufficient_scope"})
	})
}
