package browser_test

import (
	"bytes"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/web"
)

// updateTypes is set by `make generate`.
var updateTypes = flag.Bool("update-types", false, "write the types of the TypeScript client")

// clientTypes are the types of the TypeScript client.
var clientTypes = filepath.Join("..", "..", "clients", "typescript", "src", "api.ts")

// clientHead is the start of a program that uses the generated types.
const clientHead = `import type { components, paths } from "./api";

type Body<P extends keyof paths> = paths[P] extends { post: { requestBody?: { content: { "application/json": infer B } } } } ? B : never;
type Answer<P extends keyof paths, M extends "get" | "post"> =
  paths[P] extends Record<M, { responses: { 200: { content: { "application/json": infer A } } } }> ? A : never;
declare const decision: Answer<"/v1/check", "post">;
declare const consumed: Answer<"/v1/consume", "post">;
declare const held: Answer<"/v1/holds", "post">;
declare const recorded: Answer<"/v1/events", "post">;
declare const history: Answer<"/v1/usage/{email}/history", "get">;
declare const problem: components["schemas"]["Problem"];
`

// clientLines has lines of a program. The compiler must accept the good ones and refuse the others.
var clientLines = []struct {
	line string
	good bool
}{
	{`const x: Body<"/v1/check"> = { email: "ada@example.com" };`, true},
	{`const x: Body<"/v1/check"> = { email: "ada@example.com", quantity: 2 };`, true},
	{`const x: Body<"/v1/check"> = { slack_team_id: "T1", slack_user_id: "U1" };`, true},
	{`const x: Body<"/v1/check"> = { email: "ada@example.com", slack_team_id: "T1", slack_user_id: "U1", quantity: 1 };`, true},
	{`const x: Body<"/v1/consume"> = { email: "ada@example.com", idempotency_key: "1" };`, true},
	{`const x: Body<"/v1/consume"> = { slack_team_id: "T1", slack_user_id: "U1", idempotency_key: "1", quantity: 3 };`, true},
	{`const x: Body<"/v1/holds"> = { email: "ada@example.com", quantity: 1, idempotency_key: "1" };`, true},
	{`const x: Body<"/v1/holds"> = { email: "ada@example.com", quantity: 1, idempotency_key: "1", ttl_seconds: 60 };`, true},
	{`const x: Body<"/v1/holds/{id}/settle"> = { quantity: 1 };`, true},
	{`const x: Body<"/v1/holds/{id}/release"> = {};`, true},
	{`const x: Body<"/v1/events"> = { events: [{ email: "ada@example.com", quantity: 1, idempotency_key: "1", ` +
		`occurred_at: "2026-11-23T09:30:00Z" }] };`, true},
	{`const x: Body<"/v1/events"> = { events: [] };`, true},
	{`const x: NonNullable<paths["/v1/usage/{email}/history"]["get"]["parameters"]["query"]> = {};`, true},
	{`const x: boolean = decision.allowed;`, true},
	{`const x: number = decision.used + decision.remaining + decision.overage_cents;`, true},
	{`const x: "safe" | "warning" | "critical" | "exceeded" = decision.warning_level;`, true},
	{`const x: string | null = decision.notice;`, true},
	{`const x: string = decision.reason ?? "";`, true},
	{`const x: number | null = decision.spend_limit_cents;`, true},
	{`const x: string = decision.period.start;`, true},
	{`if (decision.slack) { const x: string = decision.slack.text; void x; }`, true},
	{`const x: boolean = consumed.replayed;`, true},
	{`const x: string = held.hold?.expires_at ?? "";`, true},
	{`for (const r of recorded.results ?? []) { const x: string = r.status; void x; }`, true},
	{`for (const p of history.periods ?? []) { const x: number = p.used; void x; }`, true},
	{`const x: string = problem.code;`, true},

	{`const x: Body<"/v1/check"> = { emial: 42 };`, false},
	{`const x: Body<"/v1/check"> = {};`, false},
	{`const x: Body<"/v1/check"> = { email: 42 };`, false},
	{`const x: Body<"/v1/check"> = { email: "ada@example.com", emial: "x" };`, false},
	{`const x: Body<"/v1/check"> = { slack_team_id: "T1" };`, false},
	{`const x: Body<"/v1/check"> = { email: "ada@example.com", quantity: "2" };`, false},
	{`const x: Body<"/v1/check"> = { email: "ada@example.com", idempotency_key: "1" };`, false},
	{`const x: Body<"/v1/check"> = { email: null };`, false},
	{`const x: Body<"/v1/check"> = "ada@example.com";`, false},
	{`const x: Body<"/v1/consume"> = { email: "ada@example.com" };`, false},
	{`const x: Body<"/v1/consume"> = { idempotency_key: "1" };`, false},
	{`const x: Body<"/v1/consume"> = { email: "ada@example.com", idempotency_key: 1 };`, false},
	{`const x: Body<"/v1/holds"> = { email: "ada@example.com", idempotency_key: "1" };`, false},
	{`const x: Body<"/v1/holds"> = { quantity: 1, idempotency_key: "1" };`, false},
	{`const x: Body<"/v1/holds/{id}/settle"> = {};`, false},
	{`const x: Body<"/v1/holds/{id}/settle"> = { quantity: 1, email: "ada@example.com" };`, false},
	{`const x: Body<"/v1/events"> = { events: [{ emial: 42 }] };`, false},
	{`const x: Body<"/v1/events"> = { events: [{ email: "ada@example.com", quantity: 1, idempotency_key: "1" }] };`, false},
	{`const x: Body<"/v1/events"> = [];`, false},
	{`const x: string = decision.allowed;`, false},
	{`const x = decision.alowed;`, false},
	{`const x: "fine" = decision.warning_level;`, false},
	{`const x: string = decision.notice;`, false},
	{`const x: number = decision.spend_limit_cents;`, false},
	{`const x = decision.slack.text;`, false},
	{`const x = decision.replayed;`, false},
	{`const x: paths["/v1/chekc"] = {};`, false},
}

// TestGeneratedClient generates TypeScript types from the served document, and compiles correct and
// wrong uses of them. The TypeScript client must have the same types.
func TestGeneratedClient(t *testing.T) {
	packages(t)
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tool := func(name string, args ...string) ([]byte, error) {
		t.Helper()
		program, err := filepath.Abs(filepath.Join("..", "..", "node_modules", ".bin", name))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		return cmd.CombinedOutput()
	}
	write("openapi.json", document(t))
	if out, err := tool("openapi-typescript", "openapi.json", "--output", "api.d.ts"); err != nil {
		t.Fatalf("generate types: %v\n%s", err, out)
	}
	types, err := os.ReadFile(filepath.Join(dir, "api.d.ts"))
	if err != nil {
		t.Fatal(err)
	}
	if *updateTypes {
		if err := os.WriteFile(clientTypes, types, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(clientTypes)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, types) {
		t.Errorf("%s differs from the served document; run `make generate`", clientTypes)
	}
	for _, vague := range regexp.MustCompile(`(?m)^\s+(\w+\??: (unknown|any)\b.*|\w+: unknown;)$`).FindAllString(string(types), -1) {
		t.Errorf("the type is too general: %s", vague)
	}

	// Each line is its own block, so that errors can be assigned to lines.
	var program strings.Builder
	program.WriteString(clientHead)
	first := strings.Count(clientHead, "\n") + 1
	for _, l := range clientLines {
		program.WriteString("{ " + l.line + " }\n")
	}
	write("client.ts", program.String())
	out, err := tool("tsc", "--strict", "--noEmit", "--skipLibCheck", "false", "--target", "es2022", "--module", "esnext",
		"--moduleResolution", "bundler", "client.ts")
	if err == nil {
		t.Fatal("the compiler accepts every line")
	}
	failed := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^client\.ts\((\d+),\d+\): (.*)$`).FindAllStringSubmatch(string(out), -1) {
		failed[m[1]] = m[2]
	}
	for i, l := range clientLines {
		message, refused := failed[strconv.Itoa(first+i)]
		switch {
		case l.good && refused:
			t.Errorf("refused: %s\n    %s", l.line, message)
		case !l.good && !refused:
			t.Errorf("accepted: %s", l.line)
		}
		delete(failed, strconv.Itoa(first+i))
	}
	if len(failed) > 0 || strings.Contains(string(out), "api.d.ts(") {
		t.Errorf("errors elsewhere: %v\n%s", failed, out)
	}
}

// document returns the OpenAPI document that a server serves.
func document(t *testing.T) string {
	t.Helper()
	db, err := models.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	gate, err := enforcement.Open(t.Context(), db, enforcement.Options{Catalogue: catalogue, Now: time.Now, Log: log, QueueLimit: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gate.Close)
	server, err := web.New(web.Options{
		DB: db, Gate: gate, Catalogue: catalogue, Now: time.Now, Log: log, Metrics: prometheus.NewRegistry(),
		BaseURL: "http://localhost", Version: "test", SignIn: web.SignIn{Issuer: web.SlackIssuer},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	server.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/openapi.json", http.NoBody))
	if answer.Code != http.StatusOK {
		t.Fatalf("get the document: status %d", answer.Code)
	}
	return answer.Body.String()
}
