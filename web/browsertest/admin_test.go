package browser_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/web"
)

// adminJob is the input of admin.mjs.
type adminJob struct {
	Chromium  string   `json:"chromium"`
	Arguments []string `json:"arguments"`
	Admin     string   `json:"admin"`
	Member    string   `json:"member"`
	Key       string   `json:"key"`
	Base      string   `json:"base"`
	Path      string   `json:"path"`
}

// adminResult is the output of admin.mjs: what the member reads after each refusal, and the
// organization's page as they see it after they became an admin.
type adminResult struct {
	Refusals []struct{ Name, Reason, Slack, Usage string }
	Org      string
}

// An admin sets all limits and makes a member an admin, with the keyboard and without JavaScript.
// The refused member reads which limit it was, on /usage and in Slack.
func TestAnAdminsWorkByKeyboard(t *testing.T) {
	job := adminServer(t)
	packages(t)
	job.Chromium, job.Arguments = chromium(t), browserArguments
	input, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), find(t, "node"), "admin.mjs")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("admin.mjs: %v\n%s", err, &stderr)
	}
	var got adminResult
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("admin.mjs printed %q: %v", &stdout, err)
	}
	want := []struct{ name, reason, slack, usage string }{
		{"default", "member_limit_reached", "your member limit of 101 suggestions",
			"Your member limit is 101 suggestions."},
		{"organization", "organization_spend_limit_reached", "Your organization has reached its spend limit",
			"Paused: your organization's spend limit is reached"},
		{"own", "member_limit_reached", "your member limit of 102 suggestions",
			"Your member limit is 102 suggestions."},
	}
	if len(got.Refusals) != len(want) {
		t.Fatalf("%d refusals, want %d", len(got.Refusals), len(want))
	}
	for i, w := range want {
		r := got.Refusals[i]
		if r.Name != w.name || r.Reason != w.reason || !strings.Contains(r.Slack, w.slack) || !strings.Contains(r.Usage, w.usage) {
			t.Errorf("refused by the %s limit: %+v, want %+v", w.name, r, w)
		}
	}
	for _, part := range []string{
		"Spent $0.40 of $0.40.", "spend limit from no limit to $0.40", "member limit from no limit to 101",
		"member limit from the organization's default to 500", "role from member to admin", "member limit from 500 to 102",
	} {
		if !strings.Contains(got.Org, part) {
			t.Errorf("the new admin's page does not say %q:\n%s", part, got.Org)
		}
	}
}

// adminServer serves an organization with the admin ada and the member bob.
func adminServer(t *testing.T) adminJob {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := models.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	must(err)
	t.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	must(err)
	log := slog.New(slog.DiscardHandler)
	gate, err := enforcement.Open(ctx, db, enforcement.Options{Catalogue: catalogue, Now: time.Now, Log: log, QueueLimit: 8})
	must(err)
	t.Cleanup(gate.Close)
	listener := httptest.NewUnstartedServer(nil)
	job := adminJob{Base: "http://" + listener.Listener.Addr().String()}
	server, err := web.New(web.Options{
		DB: db, Gate: gate, Catalogue: catalogue, Now: time.Now, Log: log, Metrics: prometheus.NewRegistry(),
		BaseURL: job.Base, Version: "test", SignIn: web.SignIn{Issuer: web.SlackIssuer},
	})
	must(err)
	listener.Config.Handler = server.Handler()
	listener.Start()
	t.Cleanup(listener.Close)

	o, err := models.CreateOrganization(ctx, db, models.Now(time.Now), "Acme", []string{"T1"})
	must(err)
	_, err = models.Subscribe(ctx, db, catalogue, models.Now(time.Now), models.Subscriber{OrganizationID: &o.ID}, "business")
	must(err)
	link := func(email string, role models.Role) (address string, u models.User) {
		u, err := models.SetUser(ctx, db, now, email, models.UserChange{OrganizationID: &o.ID, Role: &role})
		must(err)
		token, err := models.CreateSignInLink(ctx, db, now, email)
		must(err)
		return job.Base + web.SignInLinkPath + token, u
	}
	job.Admin, _ = link("ada@example.com", models.Admin)
	address, bob := link("bob@example.com", models.Member)
	job.Member, job.Path = address, "/org/members/"+bob.ID.String()
	job.Key, err = models.CreateAPIKey(ctx, db, now, "test", []models.Scope{models.ScopeConsume})
	must(err)
	return job
}
