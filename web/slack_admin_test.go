package web

import (
	"testing"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// Owners and admins of the bot token's Slack workspace become admins of its organization when they
// sign in with Slack. No one else does, and a sign-in succeeds without an answer from Slack.
func TestWorkspaceAdminsAreAdmins(t *testing.T) {
	for name, c := range map[string]struct {
		slack        map[string]any // the person in Slack; nil if Slack does not know them
		organization bool
		want         models.Role
	}{
		"owner":                   {map[string]any{"is_owner": true}, true, models.Admin},
		"primary owner":           {map[string]any{"is_primary_owner": true}, true, models.Admin},
		"admin":                   {map[string]any{"is_admin": true}, true, models.Admin},
		"member":                  {map[string]any{}, true, models.Member},
		"owner of a new team":     {map[string]any{"is_owner": true}, false, models.Admin},
		"deleted owner":           {map[string]any{"is_owner": true, "deleted": true}, true, models.Member},
		"owner of another team":   {map[string]any{"is_owner": true, "team_id": "T2"}, true, models.Member},
		"guest from another team": {map[string]any{"is_admin": true, "is_stranger": true}, true, models.Member},
		"unknown":                 {nil, true, models.Member},
	} {
		t.Run(name, func(t *testing.T) {
			modelstest.OnBoth(t, func(t *testing.T, address string) {
				api, i := newSlackAPI(t), newTestIssuer(t)
				f := newFixture(t, address, i.signsIn, api.options)
				if c.organization {
					f.organization("Acme", "T1")
				}
				if c.slack != nil {
					api.has("U1", "ada@example.com", c.slack)
				}
				i.says["email"] = "ada@example.com"
				b := f.browser()
				if p := b.get(b.through(i, "")); p.kind() != "See Other /usage" {
					t.Fatalf("the sign-in: %s %s", p.kind(), p.main())
				}
				if got := f.user("ada@example.com").Role; got != c.want {
					t.Errorf("the role is %s, want %s", got, c.want)
				}
			})
		})
	}
}
