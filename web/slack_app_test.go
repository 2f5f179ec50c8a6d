package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack-go/slack/slacktest"
	"golang.org/x/sync/errgroup"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const slackSecret = "0123456789abcdef0123456789abcdef"

// slackAPI is Slack's API for the team T1: it knows the people in users, and collects App Homes.
type slackAPI struct {
	server *slacktest.Server
	views  chan string
	mu     sync.Mutex
	users  map[string]map[string]any // by Slack user ID
}

func newSlackAPI(t *testing.T) *slackAPI {
	t.Helper()
	a := &slackAPI{views: make(chan string, 100), users: map[string]map[string]any{}}
	a.server = slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/auth.test", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"ok": true, "team_id": "T1", "user_id": "UBOT"}`)
		})
		c.Handle("/users.info", func(w http.ResponseWriter, r *http.Request) {
			a.mu.Lock()
			defer a.mu.Unlock()
			user, ok := a.users[r.FormValue("user")]
			if !ok {
				_, _ = io.WriteString(w, `{"ok": false, "error": "user_not_found"}`)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"ok": true, "user": user})
		})
		c.Handle("/views.publish", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			a.views <- string(body)
			_, _ = io.WriteString(w, `{"ok": true}`)
		})
	})
	a.server.Start()
	t.Cleanup(a.server.Stop)
	return a
}

// has adds a person to Slack.
func (a *slackAPI) has(id, email string, more map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	user := map[string]any{"id": id, "team_id": "T1", "is_email_confirmed": true, "profile": map[string]any{"email": email}}
	for k, v := range more {
		user[k] = v
	}
	a.users[id] = user
}

// options connect a server with this Slack.
func (a *slackAPI) options(o *Options) {
	o.Slack = SlackApp{SigningSecret: slackSecret, BotToken: "xoxb-test", API: a.server.GetAPIURL()}
}

// signed adds the headers of a request that Slack signed at a time.
func signed(body string, at time.Time) change {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(slackSecret))
	_, _ = fmt.Fprintf(mac, "v0:%s:%s", stamp, body)
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		r.Header.Set("X-Slack-Request-Timestamp", stamp)
		r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	}
}

func withHeader(name, value string) change {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// slackPost sends a request to one of Slack's routes.
func (f *fixture) slackPost(path, body string, changes ...change) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.(*testing.T).Context(), http.MethodPost, f.server.URL+path, strings.NewReader(body))
	must(f.t, err)
	for _, c := range changes {
		c(r)
	}
	response, err := f.server.Client().Do(r)
	must(f.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	must(f.t, err)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

var slackTrigger atomic.Int64 // makes each command's body, and so its signature, unique

func slackForm(team, user, text string) string {
	return url.Values{"team_id": {team}, "user_id": {user}, "command": {"/usage"}, "text": {text},
		"trigger_id": {strconv.FormatInt(slackTrigger.Add(1), 10)}}.Encode()
}

// command sends a signed slash command and returns what its answer says.
func (f *fixture) command(team, user, text string) string {
	f.t.Helper()
	body := slackForm(team, user, text)
	a := f.slackPost("/slack/commands", body, signed(body, time.Now()))
	return f.slackSays(a)
}

// slackSays checks the answer to a slash command, and returns its blocks as lines.
func (f *fixture) slackSays(a answer) string {
	f.t.Helper()
	var m slackMessage
	if err := json.Unmarshal([]byte(a.raw), &m); a.status != http.StatusOK || err != nil {
		f.t.Fatalf("status %d: %s", a.status, a.raw)
	}
	checkMessage(f.t.(*testing.T), m)
	return strings.Join(slackLines(m.Blocks), "\n")
}

func onBothWithSlack(t *testing.T, test func(t *testing.T, f *fixture, api *slackAPI)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		api := newSlackAPI(t)
		test(t, newFixture(t, address, api.options), api)
	})
}

func slackHas(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("it does not say %q:\n%s", part, got)
		}
	}
}

// TestSlashCommand sends commands of a member, an admin, and people that Tollgate does not know.
func TestSlashCommand(t *testing.T) {
	onBothWithSlack(t, func(t *testing.T, f *fixture, api *slackAPI) {
		f.withAdmins() // of T1: ada, amy, and the member bob
		f.organization("Other", "T2")
		eve := f.person("eve@example.com", "T2", models.Admin, false)
		f.used("bob@example.com", 85, f.clock())
		bob, ada := "UBOBEXAMPLECOM", "UADAEXAMPLECOM"
		const link = "<https://tollgate.example.com/"
		slackHas(t, f.command("T1", bob, ""), "Level: Warning", "85 of 100 suggestions used (85%), 15 left", "▰▰▰▰▰▰▰▰▱▱",
			"Resets <!date^1796083200^", "Overage so far: 0 suggestions, $0.00. Each extra suggestion costs $0.20. Billed to Acme.",
			link+"usage#spend-limit|Set a spend limit>", "Business plan", link+"usage|Usage page>")
		member := f.command("T1", bob, "org")
		if slackHas(t, member, "Only admins can see the usage of Acme. Ask ada@example.com or amy@example.com."); strings.Contains(member, "85") {
			t.Errorf("a member sees %s", member)
		}
		admin := f.command("T1", ada, " ORG ")
		if slackHas(t, admin, "Acme", "85 suggestions used by 1 of 3 members. Average per member: 28.33.", "28% of the included suggestions",
			"1. bob@example.com: 85 of 100 suggestions (Warning)", link+"org#spend-limit|Set a spend limit for the organization>",
			link+"org|Organization page>"); strings.Contains(admin, "eve@") || strings.Contains(admin, "Other") {
			t.Errorf("Acme's admin sees %s", admin)
		}
		other := f.command("T2", *eve.SlackUserID, "org")
		slackHas(t, other, "Other", "0 suggestions used by 0 of 1 member")
		if strings.Contains(other, "bob@") || strings.Contains(other, "Acme") {
			t.Errorf("the admin of Other sees %s", other)
		}
		slackHas(t, f.command("T1", bob, "<!channel> x"), "Send `/usage` for your usage, or `/usage org`")
		// One can sign in with Slack only if the server has credentials there.
		const unknown = "Tollgate, which counts your suggestions, does not know your Slack account yet. Use one suggestion in Slack"
		slackHas(t, f.command("T2", bob, ""), unknown+". Then try again. If that does not help, ask the operator of this service.")
		f.web.messages.signIn = true
		slackHas(t, f.command("T2", bob, ""), unknown+", or "+link+"sign-in|sign in> with Slack. Then try again.")
		f.web.messages.signIn = false

		// Slack knows the addresses of the bot token's team.
		api.has("U7", "new@example.com", nil)
		api.has("U8", "ada@example.com", nil)
		api.has("U9", "unconfirmed@example.com", map[string]any{"is_email_confirmed": false})
		api.has("U10", "far@example.com", map[string]any{"team_id": "T3"})
		_, err := models.SetUser(t.Context(), f.db, f.clock(), "otto@example.com", models.UserChange{Operator: new(true)})
		must(t, err)
		api.has("U11", "otto@example.com", nil)
		slackHas(t, f.command("T1", "U7", ""), "Level: Safe", "0 of 100 suggestions used")
		if u := f.user("new@example.com"); u.SlackUserID == nil || *u.SlackUserID != "U7" {
			t.Errorf("the new person is %+v", u)
		}
		slackHas(t, f.command("T1", "U8", "org"), "Only admins can see the usage of Acme.") // ada's address alone is not ada
		for _, unknown := range []string{"U9", "U10", "U11", "U12"} {
			slackHas(t, f.command("T1", unknown, ""), "does not know your Slack account")
		}
	})
}

// TestSlackSignatures sends requests that are tampered with, old, repeated, or not Slack's.
func TestSlackSignatures(t *testing.T) {
	onBothWithSlack(t, func(t *testing.T, f *fixture, _ *slackAPI) {
		f.person("bob@example.com", "T1", models.Member, false)
		now := time.Now()
		body := slackForm("T1", "UBOBEXAMPLECOM", "")
		post := func(sent string, changes ...change) answer {
			t.Helper()
			return f.slackPost("/slack/commands", sent, changes...)
		}
		refused := map[string]any{"code": "bad_slack_signature"}
		post(body).want(t, 401, refused)
		post(body+"&text=org", signed(body, now)).want(t, 401, refused)
		post(strings.Replace(body, "T1", "T2", 1), signed(body, now)).want(t, 401, refused)
		post(body, signed(body, now.Add(-6*time.Minute))).want(t, 401, refused)
		post(body, signed(body, now.Add(6*time.Minute))).want(t, 401, refused)
		post(body, signed(body, now), withHeader("X-Slack-Request-Timestamp", strconv.FormatInt(now.Unix()+1, 10))).want(t, 401, refused)
		post(body, signed(body, now), withHeader("X-Slack-Signature", "v0=00")).want(t, 401, refused)
		large := body + "&x=" + strings.Repeat("x", slackBody)
		post(large, signed(large, now)).want(t, 413, map[string]any{"code": "payload_too_large"})
		anonymous := slackForm("", "", "")
		post(anonymous, signed(anonymous, now)).want(t, 400, map[string]any{"code": "bad_form"})

		slackHas(t, f.slackSays(post(body, signed(body, now.Add(-4*time.Minute)))), "Level: Safe")
		repeated := map[string]any{"code": "slack_request_repeated"}
		post(body, signed(body, now.Add(-4*time.Minute))).want(t, 409, repeated)
		post(body, signed(body, now.Add(-4*time.Minute)), withHeader("X-Slack-Retry-Num", "1")).want(t, 409, repeated)

		post(body, signed(body, now.Add(-4*time.Minute)), func(r *http.Request) {
			r.Header.Set("X-Slack-Signature", "v0="+strings.ToUpper(strings.TrimPrefix(r.Header.Get("X-Slack-Signature"), "v0=")))
		}).want(t, 409, repeated)
		f.slackPost("/slack/commands", "ssl_check=1&token=x", signed("ssl_check=1&token=x", now)).want(t, 200, nil)

		// Of ten equal requests at the same time, one is answered.
		again := slackForm("T1", "UBOBEXAMPLECOM", "")
		var answered atomic.Int64
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if a := post(again, signed(again, now), withHeader("X-Slack-Retry-Num", "1")); a.status == 200 {
					answered.Add(1)
				} else if a.status != 409 {
					t.Errorf("status %d: %s", a.status, a.raw)
				}
			})
		}
		if all.Wait(); answered.Load() != 1 {
			t.Errorf("%d answers, want 1", answered.Load())
		}
	})
}

// TestSlackIsOff has no signing secret: the routes do not exist.
func TestSlackIsOff(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/t.db")
	for _, path := range []string{"/slack/commands", "/slack/events"} {
		f.slackPost(path, "{}", signed("{}", time.Now())).want(t, 404, map[string]any{"code": "not_found"})
	}
}

func homeOpened(team, user, event string) string {
	return fmt.Sprintf(`{"type": "event_callback", "team_id": %q, "event_id": %q, `+
		`"event": {"type": "app_home_opened", "user": %q, "tab": "home"}}`,
		team, event, user)
}

// TestAppHome opens App Homes. A repeated event draws nothing, and no event draws one for another team.
func TestAppHome(t *testing.T) {
	onBothWithSlack(t, func(t *testing.T, f *fixture, api *slackAPI) {
		f.withAdmins()
		f.used("bob@example.com", 96, f.clock())
		send := func(body string, changes ...change) answer {
			t.Helper()
			return f.slackPost("/slack/events", body, append([]change{signed(body, time.Now())}, changes...)...)
		}
		const challenge = `{"type": "url_verification", "challenge": "abc"}`
		send(challenge).want(t, 200, map[string]any{"challenge": "abc"})
		f.slackPost("/slack/events", challenge).want(t, 401, nil)
		send("{").want(t, 400, map[string]any{"code": "invalid_json"})

		// home returns the content of the next App Home, as lines.
		home := func(user string) string {
			t.Helper()
			var published struct {
				UserID string `json:"user_id"`
				View   struct {
					Type   string
					Blocks []slackBlock
				}
			}
			select {
			case raw := <-api.views:
				must(t, json.Unmarshal([]byte(raw), &published))
			case <-time.After(time.Minute):
				t.Fatal("no App Home")
			}
			if published.UserID != user || published.View.Type != "home" {
				t.Errorf("published for %q: %+v", published.UserID, published)
			}
			checkBlocks(t, published.View.Blocks)
			return strings.Join(slackLines(published.View.Blocks), "\n")
		}
		event := homeOpened("T1", "UBOBEXAMPLECOM", "Ev1")
		send(event).want(t, 200, nil)
		bob := home("UBOBEXAMPLECOM")
		if slackHas(t, bob, "Your usage", "Level: Critical", "96 of 100 suggestions used"); strings.Contains(bob, "Your organization") {
			t.Errorf("a member sees %s", bob)
		}
		send(event).want(t, 200, nil)
		send(event, withHeader("X-Slack-Retry-Num", "1"), withHeader("X-Slack-Retry-Reason", "http_timeout")).want(t, 200, nil)
		for _, ignored := range []string{
			homeOpened("T2", "UBOBEXAMPLECOM", "Ev2"), homeOpened("T1", "", "Ev3"),
			strings.Replace(homeOpened("T1", "UBOBEXAMPLECOM", "Ev4"), `"home"`, `"messages"`, 1),
			strings.Replace(homeOpened("T1", "UBOBEXAMPLECOM", "Ev5"), "app_home_opened", "message", 1),
		} {
			send(ignored).want(t, 200, nil)
		}
		// The header says that Slack repeats it, but the event is new.
		send(homeOpened("T1", "UADAEXAMPLECOM", "Ev6"), withHeader("X-Slack-Retry-Num", "2")).want(t, 200, nil)
		slackHas(t, home("UADAEXAMPLECOM"), "Your usage", "Your organization", "Acme", "96 suggestions used by 1 of 3 members")
		api.has("U7", "new@example.com", nil)
		send(homeOpened("T1", "U7", "Ev7")).want(t, 200, nil)
		slackHas(t, home("U7"), "Level: Safe")
		f.web.slack.stop()
		if _ = f.web.slack.work.Wait(); len(api.views) != 0 {
			t.Errorf("%d more App Homes: %s", len(api.views), <-api.views)
		}
	})
}

// TestSlackSlowDatabase puts half a second between Tollgate and PostgreSQL, and closes the server's
// connections. Each command is answered within three seconds. The second one has the figures, because
// the first one's work continues until it has opened new connections.
func TestSlackSlowDatabase(t *testing.T) {
	t.Parallel()
	const limit, tries = 3 * time.Second, 3
	f, near := newSlowFixture(t)
	ask := func(user, text string) string {
		t.Helper()
		start := time.Now()
		got := f.command("T1", user, text)
		if took := time.Since(start); took >= limit {
			t.Errorf("/usage %s took %s: %s", text, took, got)
		}
		return got
	}
	for user, test := range map[string][2]string{
		"UBOBEXAMPLECOM": {"", "50 of 100 suggestions used"}, "UADAEXAMPLECOM": {"org", "50 suggestions used by 1 of 3 members"},
	} {
		_, err := near.db.ExecContext(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "+
			"WHERE datname = current_database() AND application_name = ?", slowName)
		must(t, err)
		if first := ask(user, test[0]); !strings.Contains(first, test[1]) {
			slackHas(t, first, "Try again in a minute")
		}
		for try := 1; ; try++ {
			must(t, f.web.slack.answers.Wait())
			second := ask(user, test[0])
			if strings.Contains(second, test[1]) {
				break
			}
			if try == tries { // a busy machine may need more time
				t.Fatalf("/usage %s: %s", test[0], second)
			}
		}
	}
}

// TestManySlackCommandsOnASlowDatabase sends commands of people without usage, several at the same
// time, over a link with half a second for each round trip.
func TestManySlackCommandsOnASlowDatabase(t *testing.T) {
	t.Parallel()
	const people, atOnce, limit = 40, 10, 3 * time.Second
	f, near := newSlowFixture(t)
	near.withLinkedPeople(people)
	var mu sync.Mutex
	var took []time.Duration
	late := 0
	var asking errgroup.Group
	asking.SetLimit(atOnce)
	for i := range people {
		asking.Go(func() error {
			start := time.Now()
			got := f.command("T1", fmt.Sprintf("U%d", i), "")
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(start))
			if !strings.Contains(got, "0 of 100 suggestions used") {
				late++
			}
			return nil
		})
	}
	must(t, asking.Wait())
	slices.Sort(took)
	t.Logf("p50 %s, p99 %s, maximum %s; %d of %d answers say to try again", took[people/2], took[people*99/100], took[people-1], late, people)
	if p99 := took[people*99/100]; p99 >= limit {
		t.Errorf("p99 is %s", p99)
	}
	// The first ones wait for new connections: ten or twenty of them, and more on a busy machine.
	if late > people*3/4 {
		t.Errorf("%d of %d answers say to try again", late, people)
	}
}

// slowName is the application_name of connections over the slow link.
const slowName = "slow"

// newSlowFixture returns a server with half a second between it and PostgreSQL, and one without, on
// the same database.
func newSlowFixture(t *testing.T) (slow, near *fixture) {
	t.Helper()
	address := modelstest.Postgres(t)
	_, link := modelstest.NewSlowLink(t, address, 250*time.Millisecond)
	near = newFixture(t, address)
	near.withAdmins()
	near.used("bob@example.com", 50, near.clock())
	return newFixture(t, link+"&application_name="+slowName, newSlackAPI(t).options), near
}

// withLinkedPeople adds members with Slack identities, who have no usage.
func (f *fixture) withLinkedPeople(n int) {
	f.t.Helper()
	var links []models.Link
	for i := range n {
		identity := models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprintf("U%d", i)}
		links = append(links, models.Link{Email: fmt.Sprintf("u%d@example.com", i), Slack: identity})
	}
	_, err := models.LinkPeople(f.t.Context(), f.db, models.Now(f.clock), links)
	must(f.t, err)
}

// TestSlackDatabaseAway stops the database: a command says to try again, and an event gets a 503, so
// that Slack repeats it.
func TestSlackDatabaseAway(t *testing.T) {
	cluster, err := modelstest.StartPostgres(t.Context(), modelstest.PostgresOptions{})
	must(t, err)
	defer func() { must(t, cluster.Stop()) }()
	must(t, cluster.CreateDatabase(t.Context(), "slack"))
	f := newFixture(t, cluster.URL("slack"), newSlackAPI(t).options)
	must(t, cluster.StopKeep())
	start := time.Now()
	slackHas(t, f.command("T1", "U1", ""), "Try again in a minute")
	event := homeOpened("T1", "U1", "Ev1")
	f.slackPost("/slack/events", event, signed(event, time.Now())).want(t, 503, nil)
	if took := time.Since(start); took > 2*(slackPatience+time.Second) {
		t.Errorf("both took %s", took)
	}
}

// TestTooManySlackCommands fills all places for answers, as a database that hangs does. The next command
// gets its answer immediately, and starts nothing.
func TestTooManySlackCommands(t *testing.T) {
	onBothWithSlack(t, func(t *testing.T, f *fixture, _ *slackAPI) {
		f.withAdmins()
		hang := make(chan struct{})
		for range maxSlackAnswers {
			f.web.slack.answers.Go(func() error { <-hang; return nil })
		}
		start := time.Now()
		slackHas(t, f.command("T1", "UBOBEXAMPLECOM", ""), "Try again in a minute")
		if took := time.Since(start); took >= slackPatience {
			t.Errorf("the answer took %s", took)
		}
		close(hang)
		must(t, f.web.slack.answers.Wait())
		slackHas(t, f.command("T1", "UBOBEXAMPLECOM", ""), "suggestions used")
	})
}

func TestSlackSecrets(t *testing.T) {
	for secret, valid := range map[string]bool{
		slackSecret: true, strings.ToUpper(slackSecret): true, "": false, "short": false, slackSecret[:31]: true, slackSecret + " ": false,
		"xoxb-1-2-abcdefghijklmnopqrstuvwxyz": false,
	} {
		if err := CheckSigningSecret(secret); (err == nil) != valid {
			t.Errorf("the secret %q: %v", secret, err)
		}
	}
	for token, valid := range map[string]bool{
		"xoxb-123456-abcDEF": true, "": false, "xoxb-": false, "xoxp-123456-abc": false, "xapp-1-abcdef": false, "xoxe.xoxb-1-abcdef": false,
		"xoxb-123456 abc": false, slackSecret: false,
	} {
		if err := CheckBotToken(token); (err == nil) != valid {
			t.Errorf("the token %q: %v", token, err)
		}
	}
}
