package web

import (
	"context"
	"fmt"
	"testing"

	"tollgate/models"
)

// Each call with notify can have a Slack message: with once, the default, the first answer at each
// level and each refusal; with always, each answer with a notice; with never, none. A retry has the
// message of the first answer.
func TestNotify(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		catalogue, err := models.LoadCatalogue("")
		must(t, err)
		for _, email := range []string{"once@example.com", "always@example.com", "never@example.com", "holds@example.com"} {
			_, err = models.Subscribe(context.Background(), f.db, catalogue, f.clock(), models.Subscriber{Email: email}, "pro") // 75 units
			must(t, err)
			user, err := models.UserByEmail(context.Background(), f.db, email)
			must(t, err)
			must(t, models.SetSpendLimit(context.Background(), f.db, catalogue, f.clock(), models.ActorShell, user.ID, new(int64(30))))
		}
		// messages consumes one unit at a time, each twice, and returns the numbers of used units of
		// answers with a message.
		messages := func(email, notify string) (at []any) {
			t.Helper()
			for i := range 78 {
				body := fmt.Sprintf(`{"email": %q, "idempotency_key": "k%d"%s}`, email, i, notify)
				first, again := f.post("/v1/consume", body), f.post("/v1/consume", body)
				if (first.body["slack"] == nil) != (again.body["slack"] == nil) {
					t.Errorf("unit %d: the answer %s and its retry %s", i+1, first.raw, again.raw)
				}
				if first.body["slack"] != nil {
					at = append(at, first.body["used"])
				}
			}
			return at
		}
		compare := func(what string, got []any, want string) {
			t.Helper()
			if text := fmt.Sprint(got); text != want {
				t.Errorf("%s: messages at %s, want %s", what, text, want)
			}
		}
		compare("once", messages("once@example.com", ""), "[60 72 75 76 76]") // two refusals
		compare("always", messages("always@example.com", `, "notify": "always"`),
			"[60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 76 76]")
		compare("never", messages("never@example.com", `, "notify": "never"`), "[]")

		for notify, refused := range map[string]bool{"once": true, "always": true, "never": false} {
			a := f.post("/v1/check", fmt.Sprintf(`{"email": "once@example.com", "notify": %q}`, notify))
			if a.want(t, 200, map[string]any{"allowed": false}); (a.body["slack"] != nil) != refused || a.body["notice"] == nil {
				t.Errorf("a refused check with notify=%s: %s", notify, a.raw)
			}
		}
		f.get("/v1/usage/once@example.com").want(t, 200, map[string]any{"slack.response_type": "ephemeral"})
		for path, body := range map[string]string{
			"/v1/check": `{"email": "a@example.com", %s}`, "/v1/consume": `{"email": "a@example.com", "idempotency_key": "k", %s}`,
			"/v1/holds":          `{"email": "a@example.com", "quantity": 1, "idempotency_key": "k", %s}`,
			"/v1/holds/x/settle": `{"quantity": 1, %s}`,
		} {
			for _, notify := range []string{`"notify": "Once"`, `"notify": ""`, `"notify": null`, `"notify": 1`} {
				f.post(path, fmt.Sprintf(body, notify)).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "notify"})
			}
		}

		// A hold that crosses no level has none; its settlement crosses three.
		hold := f.post("/v1/holds", `{"email": "holds@example.com", "quantity": 75, "idempotency_key": "h"}`)
		hold.want(t, 200, map[string]any{"allowed": true, "slack": nil})
		id := hold.body["hold"].(map[string]any)["id"].(string)
		for range 2 {
			f.post("/v1/holds/"+id+"/settle", `{"quantity": 75}`).want(t, 200, map[string]any{"slack.response_type": "ephemeral"})
		}
		f.post("/v1/holds/"+id+"/settle", `{"quantity": 75, "notify": "never"}`).want(t, 200, map[string]any{"slack": nil, "replayed": true})
		f.post("/v1/holds/"+id+"/release", "").want(t, 409, nil)

		// What takes units back or adds some decides nothing, so it has no message.
		f.post("/v1/consume", `{"email": "free@example.com", "quantity": 4, "idempotency_key": "a"}`).want(t, 200, nil)
		f.post("/v1/consume", `{"email": "free@example.com", "idempotency_key": "b"}`).want(t, 200, nil)
		for range 2 {
			f.post("/v1/void", `{"email": "free@example.com", "idempotency_key": "b", "reason": "r"}`).want(t, 200,
				map[string]any{"warning_level": "warning", "slack": nil})
		}
		f.post("/v1/consume", `{"email": "free@example.com", "idempotency_key": "c"}`).want(t, 200, nil)
		f.post("/v1/grants", `{"email": "free@example.com", "quantity": 1, "reason": "r"}`).want(t, 200,
			map[string]any{"warning_level": "warning", "slack": nil})
	})
}
