//go:build linux

package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// tollgate returns a command with these variables and no other settings.
func tollgate(t *testing.T, variables []string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), program(t), args...)
	c.Dir = t.TempDir()
	c.Env = append([]string{"TMPDIR=" + c.Dir, "PATH=" + os.Getenv("PATH"), noDrain}, variables...)
	return c
}

// result is the result of a command.
type result struct {
	status         int
	stdout, stderr string
}

// runIt runs a command and waits for its end.
func runIt(t *testing.T, variables []string, args ...string) result {
	t.Helper()
	c := tollgate(t, variables, args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	tooLong := time.AfterFunc(2*time.Minute, func() { _ = c.Process.Kill() }) // for example a server that should have refused to start
	defer tooLong.Stop()
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// shell runs commands with a database.
type shell struct {
	t        *testing.T
	database string
}

// ok runs a command that must succeed, and returns what it printed.
func (s shell) ok(args ...string) string {
	s.t.Helper()
	r := runIt(s.t, []string{"DATABASE_URL=" + s.database}, args...)
	if r.status != 0 {
		s.t.Fatalf("%q: status %d, %s", args, r.status, r.stderr)
	}
	return r.stdout
}

// fails runs a command that must fail with a status and a one-line error.
func (s shell) fails(status int, part string, args ...string) {
	s.t.Helper()
	r := runIt(s.t, []string{"DATABASE_URL=" + s.database}, args...)
	if r.status != status || !strings.HasPrefix(r.stderr, "tollgate: ") || strings.Count(r.stderr, "\n") != 1 ||
		!strings.Contains(r.stderr, part) {
		s.t.Errorf("%q: status %d with %q, want %d with %q", args, r.status, r.stderr, status, part)
	}
}

// Each command prints only what it creates, and creates it.
func TestCommands(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := shell{t, kind.database(t)}
			for _, again := range []bool{false, true} {
				r := runIt(t, []string{"DATABASE_URL=" + s.database}, "migrate")
				if r.status != 0 || r.stdout != "" || !strings.Contains(r.stderr, "applied now: ") ||
					strings.Contains(r.stderr, "applied now: 0") != again {
					t.Errorf("migrate, again %t: %+v", again, r)
				}
			}

			key := s.ok("apikey", "create", "--name", "Slack app", "--scopes", "check,consume")
			if !models.IsKey(strings.TrimSuffix(key, "\n")) {
				t.Errorf("created the key %q", key)
			}
			list := s.ok("apikey", "list")
			if !strings.Contains(list, "Slack app") || !strings.Contains(list, key[:12]) || strings.Contains(list, key[12:43]) {
				t.Errorf("listed\n%s", list)
			}
			id := regexp.MustCompile(`[0-9a-f-]{36}`).FindString(list)
			s.ok("apikey", "revoke", id)
			if list = s.ok("apikey", "list"); strings.Count(list, "never") != 1 {
				t.Errorf("after it was revoked:\n%s", list)
			}

			organization := parseID(t, s.ok("organization", "create", "Quiet Fox Ltd", "--slack-team", "T1", "--slack-team", "T2"))
			ada := parseID(t, s.ok("user", "set", "Ada@example.com", "--organization", organization))
			// Before it grants a role, it prints which person has the address.
			granted := runIt(t, []string{"DATABASE_URL=" + s.database}, "user", "set", "Ada@example.com", "--role", "admin", "--operator")
			owner := "ada@example.com belongs to the user " + ada + ", who is not linked to Slack or another sign-in provider yet."
			if granted.status != 0 || !strings.HasPrefix(granted.stderr, owner) || granted.stdout != ada+"\n" {
				t.Errorf("granting a role printed %q and %q, want %q and %q", granted.stderr, granted.stdout, owner, ada)
			}
			parseID(t, s.ok("subscribe", "--organization", organization, "--plan", "business"))
			parseID(t, s.ok("subscribe", "--email", "bob@example.com", "--plan", "pro"))
			if out := s.ok("subscribe", "--email", "bob@example.com", "--plan", "free"); out != "" {
				t.Errorf("free printed %q", out)
			}
			row := regexp.MustCompile(organization + `\s+Quiet Fox Ltd\s+business\s+2\s+1\n`)
			if list := s.ok("organization", "list"); !row.MatchString(list) {
				t.Errorf("listed\n%s", list)
			}

			db, err := models.Open(t.Context(), s.database)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			u := models.User{}
			err = db.NewSelect().Model(&u).Where("email = 'ada@example.com'").Scan(t.Context())
			if err != nil || u.Role != models.Admin || !u.Operator {
				t.Errorf("the user is %+v, %v", u, err)
			}
			s.ok("user", "set", "ada@example.com", "--no-operator")
			err = db.NewSelect().Model(&u).Where("email = 'ada@example.com'").Scan(t.Context())
			if err != nil || u.Role != models.Admin || u.Operator {
				t.Errorf("without the operator's rights: %+v, %v", u, err)
			}
			var actions []string
			if err := db.NewSelect().Model((*models.AuditEntry)(nil)).Column("action").Order("at", "id").Scan(t.Context(), &actions); err != nil {
				t.Fatal(err)
			}
			want := "apikey.create apikey.revoke organization.create user.set user.set " +
				"subscription.give subscription.give subscription.end user.set"
			if got := strings.Join(actions, " "); got != want {
				t.Errorf("audit log %q, want %q", got, want)
			}

			if out := s.ok("verify"); out != "" {
				t.Errorf("verify printed %q", out)
			}
			if _, err := db.ExecContext(t.Context(), `INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end,
				plan_id, suggestions_included, suggestions_used, overage_rate_cents, entitled, created_at)
				SELECT id, email, ?, ?, 'free', 5, 3, 0, false, ? FROM users WHERE email = 'ada@example.com'`,
				time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), time.Now()); err != nil {
				t.Fatal(err)
			}
			r := runIt(t, []string{"DATABASE_URL=" + s.database}, "verify")
			if r.status != 1 || !strings.HasSuffix(r.stderr, "\ntollgate: verify: differences: 1\n") ||
				!strings.HasSuffix(r.stdout, ": 3 used units are stored, 0 were counted from its events\n") {
				t.Errorf("with a difference: %+v", r)
			}
		})
	}
}

// The commands about people, organizations and subscriptions list what the others created.
func TestCommandsOfTheOperator(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := shell{t, kind.database(t)}
			matches := func(what, printed string, patterns ...string) {
				t.Helper()
				for _, p := range patterns {
					if !regexp.MustCompile("(?m)" + p).MatchString(printed) {
						t.Errorf("%s does not match %q:\n%s", what, p, printed)
					}
				}
			}
			silent := func(args ...string) {
				t.Helper()
				if out := s.ok(args...); out != "" {
					t.Errorf("%q printed %q", args, out)
				}
			}
			organization := parseID(t, s.ok("organization", "create", "Quiet Fox", "--slack-team", "T1"))
			ada := parseID(t, s.ok("user", "set", "ada@example.com", "--organization", organization, "--role", "admin"))
			s.ok("user", "set", "bob@example.com")
			plan := parseID(t, s.ok("subscribe", "--organization", organization, "--plan", "business"))

			matches("user list", s.ok("user", "list"), ada+` +ada@example.com +- +Quiet Fox +admin +false$`, `bob@example.com +- +- +member +false$`)
			for _, args := range [][]string{{"--search", "ADA@"}, {"--organization", organization}} {
				if list := s.ok(append([]string{"user", "list"}, args...)...); strings.Count(list, "\n") != 2 || !strings.Contains(list, ada) {
					t.Errorf("%q:\n%s", args, list)
				}
			}
			silent("organization", "set", organization, "--spend-limit", "12.50", "--member-limit", "200")
			silent("organization", "rename", organization, "Loud Fox")
			matches("user show", s.ok("user", "show", "Ada@example.com"), "^ID: +"+ada, "^Organization: +Loud Fox$", "^Role: +admin$",
				"^Plan: +business$", "^Included: +100$", "^Used: +0, 0 of them extra$", "^Member limit: +200$")
			matches("organization show", s.ok("organization", "show", organization), "^Name: +Loud Fox$", "^Plan: +business$",
				"^Members: +1, 0 of them active$", "^Admins: +ada@example.com$", `^Spend limit: +\$12.50, \$0.00 spent$`, "^Member limit: +200$")
			silent("organization", "set", organization, "--spend-limit", "none", "--member-limit", "none")
			matches("without limits", s.ok("organization", "show", organization), "^Spend limit: +none$", "^Member limit: +none$")

			matches("subscription list", s.ok("subscription", "list"), plan+` +Loud Fox +business +active +by hand `)
			silent("subscription", "end", plan)
			if list := s.ok("subscription", "list"); strings.Contains(list, plan) {
				t.Errorf("after the end:\n%s", list)
			}
			matches("all", s.ok("subscription", "list", "--all"), plan+` +Loud Fox +business +canceled +by hand `)
			matches("the plan", s.ok("user", "show", "ada@example.com"), "^Plan: +free$")

			unknown := uuid.NewString()
			paid := parseID(t, s.ok("subscribe", "--email", "bob@example.com", "--plan", "pro"))
			db, err := models.Open(t.Context(), s.database)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			if _, err := db.ExecContext(t.Context(), "UPDATE subscriptions SET stripe_subscription_id = 'sub_1' WHERE id = ?", paid); err != nil {
				t.Fatal(err)
			}
			s.fails(1, "is at Stripe: end sub_1 in Stripe", "subscription", "end", paid)
			s.fails(1, "has ended already", "subscription", "end", plan)
			s.fails(1, "there is no subscription "+unknown, "subscription", "end", unknown)
			s.fails(1, "There is no user cyd@example.com", "user", "show", "cyd@example.com")
			s.fails(1, "There is no organization "+unknown, "organization", "show", unknown)
			s.fails(1, "There is no organization "+unknown, "organization", "rename", unknown, "X")
			s.fails(1, "must be 1 to 200 printable characters", "organization", "rename", organization, " ")
			s.fails(1, "missing --spend-limit or --member-limit", "organization", "set", organization)
			s.fails(1, `--spend-limit is "-1"`, "organization", "set", organization, "--spend-limit=-1")
			s.fails(1, `--member-limit is "many"`, "organization", "set", organization, "--member-limit", "many")
		})
	}
}

func parseID(t *testing.T, printed string) string {
	t.Helper()
	id, err := uuid.Parse(strings.TrimSuffix(printed, "\n"))
	if err != nil {
		t.Fatalf("printed %q, want only an ID", printed)
	}
	return id.String()
}

func TestCommandsThatFail(t *testing.T) {
	s := shell{t, sqliteDatabase(t)}
	unknown := uuid.NewString()
	// A command about recorded data does not create the default database, which would be empty.
	for _, args := range [][]string{{"verify"}, {"user", "export", "ada@example.com"}, {"stripe", "reconcile"}} {
		c := tollgate(t, nil, args...)
		const says = `tollgate: open database "sqlite:tollgate.db": no such file; name the database in --database or --config` + "\n"
		if output, err := c.CombinedOutput(); err == nil || string(output) != says {
			t.Errorf("%v without a database: %v, %s", args, err, output)
		}
		if _, err := os.Stat(filepath.Join(c.Dir, "tollgate.db")); err == nil {
			t.Errorf("%v created a database", args)
		}
	}
	s.fails(2, `expected one of "serve"`)
	s.fails(2, "unexpected argument frob", "frob")
	s.fails(2, "unknown flag --frob", "serve", "--frob")
	s.fails(2, "missing flags: --name=STRING (see tollgate apikey create --help)", "apikey", "create", "--scopes", "read")
	s.fails(1, "missing --email or --organization", "subscribe", "--plan", "pro")
	s.fails(2, "can't be used together", "subscribe", "--plan", "pro", "--email", "a@example.com", "--organization", unknown)
	s.fails(2, "invalid UUID", "apikey", "revoke", "7")
	for _, address := range []string{
		"example.com", "https://", "https://:443", "ftp://example.com", "https://example.com?", "https://example.com#",
		"https://example.com:", "https://example.com:0", "https://example.com:99999",
	} {
		s.fails(2, "is not an address such as", "serve", "--base-url", address)
	}
	r := runIt(t, nil, "serve", "--base-url", "https://ada:hunter2@example.com")
	if r.status != 2 || strings.Contains(r.stderr, "hunter2") || !strings.Contains(r.stderr, "must not contain a user or password") {
		t.Errorf("a base URL with a password: %+v", r)
	}
	for _, address := range []string{
		"https://example.com/tollgate", "https://example.com/tollgate/", "https://example.com//", "https://example.com/%2f",
	} {
		s.fails(2, "has a path", "serve", "--base-url", address)
	}
	s.fails(2, "--log-level", "serve", "--log-level", "loud")
	s.fails(2, `"xml" is not a log format; use json or text`, "serve", "--log-format", "xml")
	s.fails(2, "--trusted-proxies", "serve", "--trusted-proxies", "10.0.0.0/33")
	s.fails(1, `unknown scope "all"`, "apikey", "create", "--name", "x", "--scopes", "all")
	s.fails(1, "there is no API key "+unknown, "apikey", "revoke", unknown)
	s.fails(1, "There is no organization "+unknown, "user", "set", "a@example.com", "--organization", unknown)
	s.fails(1, `"team" is a team plan`, "subscribe", "--email", "a@example.com", "--plan", "team")
	s.fails(1, "must be 1 to 200 printable characters", "organization", "create", " ")
	s.fails(1, `the database must be "sqlite:FILE" or "postgres://USER@HOST/NAME"`, "verify", "--database", "mysql://x")
	s.fails(1, "no-such-plans.yaml", "serve", "--plans", "no-such-plans.yaml", "--listen", "127.0.0.1:0")
	plans := filepath.Join(t.TempDir(), "plans.yaml")
	if err := os.WriteFile(plans, []byte("plans: 3\ncolor: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(1, `plans.yaml:2: unknown key "color"`, "serve", "--plans", plans, "--listen", "127.0.0.1:0")
	s.fails(1, "--listen", "serve", "--listen", "nowhere")
	s.fails(1, "--listen is empty", "serve", "--listen", "")
	s.fails(1, "a Slack team id is", "organization", "create", "Quiet Fox Ltd", "--slack-team", "")
}

func TestFlagsAndVariables(t *testing.T) {
	dir := t.TempDir()
	a, b := "sqlite:"+filepath.Join(dir, "a.db"), "sqlite:"+filepath.Join(dir, "b.db")
	shell{t, a}.ok("organization", "create", "In A")
	file := filepath.Join(dir, "address")
	if err := os.WriteFile(file, []byte(a+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		variables []string
		args      []string
		inA       bool
	}{
		"after the command":       {nil, []string{"organization", "list", "--database", a}, true},
		"before the command":      {nil, []string{"--database", a, "organization", "list"}, true},
		"between":                 {nil, []string{"organization", "--database=" + a, "list"}, true},
		"variable":                {[]string{"DATABASE_URL=" + a}, []string{"organization", "list"}, true},
		"a flag and its variable": {[]string{"DATABASE_URL=" + a}, []string{"organization", "list", "--database", b}, false},
		"a file":                  {[]string{"DATABASE_URL_FILE=" + file}, []string{"organization", "list"}, true},
		"a flag and a file":       {[]string{"DATABASE_URL_FILE=" + file}, []string{"organization", "list", "--database", b}, false},
		"the default":             {nil, []string{"organization", "list"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			r := runIt(t, test.variables, test.args...)
			if r.status != 0 || strings.Contains(r.stdout, "In A") != test.inA {
				t.Errorf("got %+v", r)
			}
		})
	}
	r := runIt(t, []string{"DATABASE_URL=" + a, "DATABASE_URL_FILE=" + file}, "verify")
	if r.status != 2 || !strings.Contains(r.stderr, "DATABASE_URL and DATABASE_URL_FILE are both set") {
		t.Errorf("both: %+v", r)
	}
	r = runIt(t, []string{"DATABASE_URL=" + a + "\n"}, "organization", "list")
	if r.status != 0 || !strings.Contains(r.stdout, "In A") {
		t.Errorf("a variable that ends with a line break: %+v", r)
	}
	r = runIt(t, []string{"DATABASE_URL=" + a}, "serve", "--report-every=-1s")
	if r.status != 2 || !strings.Contains(r.stderr, "--report-every must not be negative: -1s") {
		t.Errorf("a negative interval: %+v", r)
	}
	r = runIt(t, []string{"DATABASE_URL_FILE=" + file + "2"}, "verify")
	if r.status != 2 || !strings.Contains(r.stderr, "DATABASE_URL_FILE: open") {
		t.Errorf("a missing file: %+v", r)
	}
}

// --help, with and without a command, lists every flag with its variable and default.
func TestHelp(t *testing.T) {
	space := regexp.MustCompile(`\s+`)
	for _, command := range [][]string{nil, {"serve"}, {"user", "set"}} {
		// --help ends the process.
		c := tollgate(t, nil, append(command, "--help")...)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		stdout, err := c.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%q: %v, %s", command, err, &stderr)
		}
		text := space.ReplaceAllString(string(stdout), " ")
		for flag, variable := range map[string]string{
			`--database="sqlite:tollgate.db"`: "($DATABASE_URL)", `--listen="127.0.0.1:8080"`: "($TOLLGATE_LISTEN)",
			"--base-url=": "($TOLLGATE_BASE_URL)", `--oidc-issuer="https://slack.com"`: "($OIDC_ISSUER)",
			"--stripe-api-base=": "($STRIPE_API_BASE)", "--slack-api-base=": "($SLACK_API_BASE)",
			"--metrics-listen=": "($TOLLGATE_METRICS_LISTEN)", "--plans=": "($TOLLGATE_PLANS)", "--trusted-proxies=": "($TOLLGATE_TRUSTED_PROXIES)",
			"--log-level=": "($TOLLGATE_LOG_LEVEL)", "--log-format=": "($TOLLGATE_LOG_FORMAT)",
		} {
			if i := strings.Index(text, flag); i < 0 || !strings.Contains(text[i:], variable) {
				t.Errorf("%q: %s with %s is not in\n%s", command, flag, variable, stdout)
			}
		}
	}
	if stdout, err := tollgate(t, nil, "serve", "--help").Output(); err != nil || !strings.Contains(string(stdout), "--drain=5s ") {
		t.Errorf("serve: %v\n%s", err, stdout)
	}
	c := tollgate(t, nil, "subscribe", "--help")
	if stdout, err := c.Output(); err != nil || strings.Contains(string(stdout), "--email=STRING --organization=ID") ||
		strings.Count(space.ReplaceAllString(string(stdout), " "), "Give --email or --organization, not both") != 2 {
		t.Errorf("subscribe: %v\n%s", err, stdout)
	}
	if r := runIt(t, nil, "version"); r.status != 0 || strings.TrimSpace(r.stdout) == "" {
		t.Errorf("version: %+v", r)
	}
}

// A printed link signs in once, at its server.
func TestSignInLink(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			sh := shell{t, kind.database(t)}
			s := start(t, "serve", "--database", sh.database, "--listen", "127.0.0.1:0")
			sh.fails(1, "No user has the email ada@example.com; create one with: tollgate user set ada@example.com",
				"sign-in", "ada@example.com")
			sh.ok("user", "set", "ada@example.com")
			sh.fails(1, "--base-url", "sign-in", "ada@example.com", "--listen", "127.0.0.1:0")
			sh.fails(1, "--base-url", "sign-in", "ada@example.com", "--listen", "")
			for args, base := range map[string]string{
				"--listen=:9000": "http://localhost:9000", "--listen=[::1]:9000": "http://[::1]:9000",
				"--base-url=https://a.example/": "https://a.example",
			} {
				want := regexp.MustCompile(`^` + regexp.QuoteMeta(base) + `/sign-in/[A-Z2-7]{26}\n$`)
				if link := sh.ok("sign-in", "ada@example.com", args); !want.MatchString(link) {
					t.Errorf("with %s it printed %q", args, link)
				}
			}

			link := strings.TrimSpace(sh.ok("sign-in", "Ada@example.com", "--listen", strings.TrimPrefix(s.url, "http://")))
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			browser := &http.Client{
				Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			send := func(method, url string) int {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				response, err := browser.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				return response.StatusCode
			}
			for _, step := range []struct {
				method, url string
				status      int
			}{
				{http.MethodGet, s.url + "/settings", 303}, {http.MethodGet, link, 200}, {http.MethodPost, link, 303},
				{http.MethodGet, s.url + "/settings", 200},
				// If the form is sent again, a signed-in person is only redirected.
				{http.MethodPost, link, 303}, {http.MethodPost, s.url + "/sign-out", 303}, {http.MethodGet, s.url + "/settings", 303},
				{http.MethodGet, link, 404}, {http.MethodPost, link, 404},
			} {
				if status := send(step.method, step.url); status != step.status {
					t.Errorf("%s %s: %d, want %d", step.method, step.url, status, step.status)
				}
			}
			if status := s.stop(t, syscall.SIGTERM); status != 0 {
				t.Errorf("status %d, %s", status, s.stderr)
			}
			if token := link[strings.LastIndex(link, "/")+1:]; strings.Contains(s.stderr.String(), token) {
				t.Error("the log has the link")
			}
		})
	}
}

// The issuer and the client come from variables, or from files that variables name.
func TestSignInSettings(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		variables []string
		shows     string
	}{
		"nothing": {nil, "Sign-in with Slack is not available here."},
		"unreachable": {
			[]string{"SLACK_CLIENT_ID=1.2", "SLACK_CLIENT_SECRET_FILE=" + secret, "OIDC_ISSUER=http://127.0.0.1:1"},
			"127.0.0.1:1 cannot be reached",
		},
		"other": {[]string{"OIDC_ISSUER=https://id.example.com"}, "Sign-in with id.example.com is not available here."},
	} {
		t.Run(name, func(t *testing.T) {
			s := startWith(t, test.variables, "serve", "--database", sqliteDatabase(t), "--listen", "127.0.0.1:0")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/sign-in", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || !strings.Contains(string(body), test.shows) || strings.Contains(string(body), "s3cret") {
				t.Errorf("%v, the page is %s", err, body)
			}
			if s.stop(t, syscall.SIGTERM); strings.Contains(s.stderr.String(), "s3cret") {
				t.Error("the log has the secret")
			}
		})
	}
	shell{t, sqliteDatabase(t)}.fails(1, `the OpenID issuer "http://id.example.com" is not an address`,
		"serve", "--listen", "127.0.0.1:0", "--oidc-issuer", "http://id.example.com")
}
