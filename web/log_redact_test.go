package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

func TestTheLogHasNoEmails(t *testing.T) {
	for _, email := range []string{
		"ada@example.com", "o'brien+x@mail.example.co.uk", "äda@exämple.com", "ada%40example.com", "a=b@example.com", "{ada}@example.com",
		"ada@localhost", "boss/@example.com", "john/doe@example.com",
	} {
		for _, frame := range []string{
			"%s", "sign in %s by Slack: no", "Key (email)=(%s) already exists.", `invalid input syntax: "%s"`, "VALUES ('%s', 1)", "mailto:%s",
			"/v1/usage/%s/history", "<%s>", "email=%s,",
		} {
			out := &lines{}
			log := slog.New(Redacted(slog.NewJSONHandler(out, nil)))
			text := fmt.Sprintf(frame, email)
			err := fmt.Errorf("query: %w", errors.New(text))
			log.With("with", text).WithGroup("group").ErrorContext(context.Background(), text, "text", text, "error", err, "list", []string{text},
				slog.Group("inner", "text", text, "error", err))
			got := strings.Join(out.take(), "\n")
			local, domain, _ := strings.Cut(strings.Replace(email, "%40", "@", 1), "@")
			if strings.Contains(got, local+"@") || strings.Contains(got, "@"+domain) || strings.Contains(got, "%40") ||
				strings.Count(got, redactedEmail) < 7 {
				t.Errorf("%q is logged as %s", text, got)
			}
		}
	}
	for _, text := range []string{"postgres://tollgate@db.internal:5432/tollgate", "an @ alone", "https://user@host.example/path"} {
		if got := redactEmails(text); got != text {
			t.Errorf("%q is logged as %q", text, got)
		}
	}
}

// Other servers may repeat the settings' secrets, and a panic may have anything.
func TestTheLogHasNoSecrets(t *testing.T) {
	const key, short = "sk_test_hidden@key", "art"
	out := &lines{}
	log := slog.New(Redacted(slog.NewJSONHandler(out, nil), key, "", short))
	err := fmt.Errorf("panic: %w", errors.New("invalid key "+key))
	log.With("with", key).Error(key, "error", err, "stack", "main.go("+key+")", "list", []string{key}, "short", short, "word", "started")
	if got := strings.Join(out.take(), "\n"); strings.Contains(got, "hidden") || strings.Count(got, "[secret]") != 6 ||
		!strings.Contains(got, `"short":"[secret]","word":"started"`) {
		t.Errorf("the line is %s", got)
	}
}

// Errors contain emails: those of the database, in their statements and details.
func TestErrorsOfRequestsAreLoggedWithoutEmails(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		out := &lines{}
		log := slog.New(Redacted(slog.NewJSONHandler(out, nil)))
		f.web.log, f.web.keys.log, f.web.sessions.log = log, log, log
		f.post("/v1/consume", `{"email": "ada@example.com", "idempotency_key": "a"}`).want(t, 200, nil)
		b := f.signedIn("ada@example.com")
		for _, table := range []string{"usage_records", "subscriptions"} {
			_, err := f.db.ExecContext(t.Context(), "ALTER TABLE "+table+" RENAME TO away_"+table)
			must(t, err)
		}
		for _, path := range []string{"/v1/usage/ada@example.com", "/v1/usage/bob%40example.com/history"} {
			if got := f.get(path); got.status < http.StatusInternalServerError {
				t.Errorf("%s: status %d", path, got.status)
			}
		}
		f.post("/v1/consume", `{"email": "carl@example.com", "slack_team_id": "T1", "slack_user_id": "U1", "idempotency_key": "b"}`)
		b.get("/usage")
		got := strings.Join(out.take(), "\n")
		if !strings.Contains(got, `"level":"ERROR"`) || !strings.Contains(got, "usage_records") {
			t.Errorf("the log lacks the errors: %s", got)
		}
		if strings.Contains(got, "example.com") {
			t.Errorf("the log has an email: %s", got)
		}
	})
}
