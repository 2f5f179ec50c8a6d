package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
)

// patch sends a change.
func (f *fixture) patch(path, body string, changes ...change) answer {
	return f.call(http.MethodPatch, path, body, append([]change{withType("application/json")}, changes...)...)
}

// team is an organization with a plan, and the path of its settings.
func (f *fixture) team(plan models.PlanID) (id uuid.UUID, path string) {
	id = f.organization("Acme", "T1")
	f.subscribe(models.Subscriber{OrganizationID: &id}, plan)
	return id, "/v1/organizations/" + id.String()
}

// memberCall is a request for units of a person in the team T1.
const memberCall = `{"email": "%[1]s@example.com", "slack_team_id": "T1", "slack_user_id": "U%[1]s", "quantity": %[2]d,
	"idempotency_key": "%[3]s"}`

func TestChangeOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, path := f.team("team")
		key := withKey(f.newKey(models.ScopeManage))
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 52, "a")).want(t, 200, map[string]any{"overage_cents": 50})
		f.patch(path, `{"name": "Acme Inc.", "spend_limit_cents": 100, "member_limit": 60}`, key).want(t, 200, map[string]any{
			"name": "Acme Inc.", "spend_limit_cents": 100, "member_limit": 60, "overage_cents": 50, "plan": "team",
		})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 3, "b")).want(t, 200, map[string]any{
			"allowed": false, "reason": "organization_spend_limit_reached", "member_limit": 60, "slack.response_type": "ephemeral",
			"notice": "You've used all 50 included suggestions and 2 extra ($0.50 so far). This request would exceed your " +
				"organization's spend limit. Your included suggestions reset on Dec 1, 2026, 00:00 UTC.",
		})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 2, "c")).want(t, 200, map[string]any{"allowed": true, "overage_cents": 100})
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"reason": "organization_spend_limit_reached"})
		f.patch(path, `{"spend_limit_cents": null}`, key).want(t, 200, map[string]any{"spend_limit_cents": nil, "member_limit": 60})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 7, "d")).want(t, 200, map[string]any{
			"reason": "member_limit_reached", "notice": "You've used all 50 included suggestions and 4 extra ($1.00 so far). " +
				"This request would exceed your member limit of 60 suggestions. Your included suggestions reset on Dec 1, 2026, 00:00 UTC.",
		})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 6, "e")).want(t, 200, map[string]any{"allowed": true, "used": 60})
		f.patch(path, `{}`, key).want(t, 200, map[string]any{"name": "Acme Inc.", "member_limit": 60})
		f.patch(path, `{"name": "\tAcme Inc. "}`, key).want(t, 200, map[string]any{"name": "Acme Inc."})
		if lines := f.audited("organization.set"); len(lines) != 4 ||
			!strings.Contains(strings.Join(lines, "\n"), "spend limit from no limit to $1.00") {
			t.Errorf("the audit log has %q", lines)
		}

		for body, field := range map[string]string{
			`{"spend_limit_cents": -1}`: "spend_limit_cents", `{"spend_limit_cents": 100000001}`: "spend_limit_cents",
			`{"spend_limit_cents": "9"}`: "spend_limit_cents", `{"member_limit": 1.5}`: "member_limit", `{"member_limit": true}`: "member_limit",
			`{"member_limit": 1000000001}`: "member_limit", `{"name": ""}`: "name", `{"name": null}`: "name", `{"name": "a\nb"}`: "name",
			`{"name": " "}`: "name", `{"limit": 1}`: "limit", `{"spend_limit_cents": 1, "spend_limit_cents": 2}`: "spend_limit_cents",
		} {
			f.patch(path, body, key).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": field})
		}
		unscoped := withKey(f.newKey(models.ScopeCheck, models.ScopeConsume, models.ScopeRead))
		f.patch(path, `{"member_limit": 1}`, unscoped).want(t, 403, map[string]any{"code": "insufficient_scope"})
		f.patch("/v1/organizations/"+uuid.NewString(), `{"member_limit": 1}`, key).want(t, 404, map[string]any{"code": "unknown_organization"})
		f.patch("/v1/organizations/acme", `{"member_limit": 1}`, key).want(t, 404, map[string]any{"code": "unknown_organization"})
		f.get(path+"/usage").want(t, 200, map[string]any{"spend_limit_cents": nil, "member_limit": 60})
	})
}

func TestChangeUser(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, path := f.team("team")
		other := f.organization("Other", "T2")
		key := withKey(f.newKey(models.ScopeManage))
		const user = "/v1/users/ada@example.com"
		f.patch(user, `{"role": "admin"}`, key).want(t, 404, map[string]any{"code": "unknown_user"})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 1, "a")).want(t, 200, nil)
		f.patch(path, `{"member_limit": 3}`, key).want(t, 200, nil)
		f.patch(user, `{"role": "admin", "member_limit": 5}`, key).want(t, 200, map[string]any{
			"email": "ada@example.com", "role": "admin", "member_limit": 5, "organization_id": acme.String(),
		})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 4, "b")).want(t, 200, map[string]any{"allowed": true, "member_limit": 5})
		f.patch(user, `{"member_limit": null}`, key).want(t, 200, map[string]any{"role": "admin", "member_limit": nil})
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 1, "c")).want(t, 200, map[string]any{"reason": "member_limit_reached",
			"member_limit": 3})
		f.person("amy@example.com", "T1", models.Admin, false)
		f.patch(user, fmt.Sprintf(`{"organization_id": %q}`, other), key).want(t, 200, map[string]any{
			"role": "member", "organization_id": other.String(),
		})
		f.patch(user, `{"organization_id": null}`, key).want(t, 200, map[string]any{"organization_id": nil})
		f.patch(user, `{"role": "admin"}`, key).want(t, 422, map[string]any{"errors.path": "role"})
		f.patch(user, `{"member_limit": 3}`, key).want(t, 422, map[string]any{"errors.path": "member_limit"})
		f.patch(user, `{"organization_id": "acme"}`, key).want(t, 422, map[string]any{"errors.path": "organization_id"})
		f.patch(user, fmt.Sprintf(`{"organization_id": %q}`, uuid.NewString()), key).want(t, 404, map[string]any{"code": "unknown_organization"})
		f.patch(user, fmt.Sprintf(`{"organization_id": %q}`, f.organization("Empty")), key).want(t, 422, map[string]any{
			"errors.path": "organization_id",
		})
		f.step(t, "the last admin", func(t *testing.T) {
			f.patch(user, fmt.Sprintf(`{"organization_id": %q, "role": "admin"}`, other), key).want(t, 200, map[string]any{"role": "admin"})
			entries := f.audited("user.")
			for body, field := range map[string]string{
				`{"role": "member"}`: "role", `{"organization_id": null}`: "organization_id",
				`{"organization_id": null, "role": "member"}`:                 "organization_id",
				fmt.Sprintf(`{"organization_id": %q}`, acme):                  "organization_id",
				fmt.Sprintf(`{"organization_id": %q, "role": "admin"}`, acme): "organization_id",
			} {
				f.patch(user, body, key).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": field,
					"errors.message": "this is the only admin of the organization; make another member an admin first"})
			}
			for _, body := range []string{`{}`, `{"role": "admin"}`, `{"member_limit": null}`, fmt.Sprintf(`{"organization_id": %q}`, other)} {
				f.patch(user, body, key).want(t, 200, map[string]any{"role": "admin", "organization_id": other.String()})
			}
			if got := f.audited("user."); len(got) != len(entries) {
				t.Errorf("calls that change nothing added %q", got[len(entries):])
			}
			f.person("boss@example.com", "T2", models.Admin, false)
			f.patch(user, `{"role": "member"}`, key).want(t, 200, map[string]any{"role": "member"})
		})
		f.patch("/v1/users/ada", `{}`, key).want(t, 422, map[string]any{"errors.path": "email"})
		f.patch(user, `{}`, withKey(f.newKey(models.ScopeCheck, models.ScopeConsume, models.ScopeRead))).want(t, 403,
			map[string]any{"code": "insufficient_scope"})
	})
}
