package notify

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/slack-go/slack/slacktest"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) {
	if settings := os.Getenv(workerVariable); settings != "" {
		if err := work(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	modelstest.Main(m, models.Open)
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// onBoth runs a test on a new database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		test(t, newFixture(t, address))
	})
}

// fixture is a database with servers for each channel.
type fixture struct {
	t     *testing.T
	db    *models.DB
	plans *models.Catalogue
	now   atomic.Pointer[time.Time]

	smtp     *smtpServer
	slack    *slackServer
	webhooks *webhookServer
}

func newFixture(t *testing.T, address string) *fixture {
	t.Helper()
	f := &fixture{t: t, smtp: newSMTPServer(t), slack: newSlackServer(t), webhooks: newWebhookServer(t)}
	f.now.Store(&noon)
	var err error
	if f.db, err = models.Open(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	f.plans, err = models.LoadCatalogue("")
	must(t, err)
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) clock() time.Time { return *f.now.Load() }

func (f *fixture) advance(d time.Duration) { f.now.Store(new(f.clock().Add(d))) }

// worker returns a worker with all channels. Its random number is always 0.
func (f *fixture) worker(changes ...func(*Options)) *Worker {
	o := Options{
		DB: f.db, Catalogue: f.plans, Now: f.clock, Log: slog.New(slog.NewTextHandler(testLog{f.t}, nil)),
		BaseURL: "https://tollgate.example.com", SlackToken: "xoxb-1", SlackAPI: f.slack.GetAPIURL(), SMTP: f.smtp.address(),
		Dial: f.webhooks.dial, RootCAs: f.webhooks.roots, Every: 10 * time.Millisecond, Random: func() float64 { return 0 },
	}
	for _, change := range changes {
		change(&o)
	}
	return New(o)
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Logf("%s", b)
	}
	return len(b), nil
}

// drain does everything that is due.
func (f *fixture) drain(w *Worker) {
	f.t.Helper()
	for more := true; more; {
		more = f.once(w)
	}
}

func (f *fixture) once(w *Worker) (more bool) {
	f.t.Helper()
	steps := []func(context.Context) (bool, error){w.prepare}
	for _, channel := range []models.NoticeChannel{models.ChannelSlack, models.ChannelMail, models.ChannelWebhook} {
		if w.has(channel) {
			steps = append(steps, func(ctx context.Context) (bool, error) { return w.deliver(ctx, channel) })
		}
	}
	for _, step := range steps {
		found, err := step(context.Background())
		if err != nil {
			f.t.Error(err)
			return false
		}
		more = more || found
	}
	return more
}

// person signs a person in with Slack, which verifies their address.
func (f *fixture) person(email, team, slackID string) uuid.UUID {
	f.t.Helper()
	p, err := models.SignInBySlack(f.t.Context(), f.db, noon, models.SlackIdentity{TeamID: team, UserID: slackID}, email, "")
	must(f.t, err)
	return p.UserID
}

// organizationOf returns the organization of a person.
func (f *fixture) organizationOf(user uuid.UUID) uuid.UUID {
	f.t.Helper()
	r, err := models.NoticeRecipientByID(f.t.Context(), f.db, user)
	must(f.t, err)
	return *r.OrganizationID
}

func (f *fixture) setRole(email string, role models.Role) {
	f.t.Helper()
	_, err := models.SetUser(f.t.Context(), f.db, noon, email, models.UserChange{Role: &role})
	must(f.t, err)
}

// endpoint adds a webhook endpoint.
func (f *fixture) endpoint() *models.WebhookEndpoint {
	f.t.Helper()
	e, err := models.AddWebhookEndpoint(f.t.Context(), f.db, noon, "ops@example.com", uuid.Must(uuid.NewV7()),
		"https://hooks.example.com/in?key=1")
	must(f.t, err)
	return e
}

// notice writes a notice that a person has used 60 of 75 units. changes change it.
func (f *fixture) notice(subject uuid.UUID, changes ...func(*models.DueNotice)) uuid.UUID {
	f.t.Helper()
	month := models.CalendarMonth(noon)
	n := &models.DueNotice{
		ID: uuid.Must(uuid.NewV7()), Subject: subject, SubjectKind: models.SubjectUser, Kind: models.NoticeIncluded,
		PeriodStart: month.Start, Threshold: 80, State: models.NoticePending, CreatedAt: f.clock(), DueAt: f.clock(), ExpiresAt: month.End,
		Facts: models.NoticeFacts{Plan: "pro", PeriodEnd: month.End, Used: 60, Included: 75, OverageRateCents: 30},
	}
	for _, change := range changes {
		change(n)
	}
	_, err := f.db.NewInsert().Model(n).Exec(f.t.Context())
	must(f.t, err)
	return n.ID
}

func withKind(kind models.NoticeKind, threshold int64) func(*models.DueNotice) {
	return func(n *models.DueNotice) { n.Kind, n.Threshold = kind, threshold }
}

func raised(n int64) func(*models.DueNotice) { return func(d *models.DueNotice) { d.Raises = n } }

func forOrganization(n *models.DueNotice) { n.SubjectKind = models.SubjectOrganization }

// deliveries returns a notice's deliveries in words, by channel: "mail sent", "slack pending".
func (f *fixture) deliveries(notice uuid.UUID) (all []string) {
	f.t.Helper()
	for _, d := range f.rows(notice) {
		all = append(all, string(d.Channel)+" "+string(d.State))
	}
	return all
}

func (f *fixture) rows(notice uuid.UUID) (rows []models.NoticeDelivery) {
	f.t.Helper()
	must(f.t, f.db.NewSelect().Model(&rows).Where("notice_id = ?", notice).Order("channel", "created_at", "id").Scan(f.t.Context()))
	return rows
}

func (f *fixture) state(notice uuid.UUID) (state models.NoticeState) {
	f.t.Helper()
	must(f.t, f.db.NewSelect().Model((*models.DueNotice)(nil)).Column("state").Where("id = ?", notice).Scan(f.t.Context(), &state))
	return state
}

// attempts returns the outcomes of a delivery's attempts.
func (f *fixture) attempts(delivery uuid.UUID) (all []string) {
	f.t.Helper()
	var rows []models.NoticeAttempt
	must(f.t, f.db.NewSelect().Model(&rows).Where("delivery_id = ?", delivery).Order("number").Scan(f.t.Context()))
	for _, r := range rows {
		all = append(all, string(r.Outcome))
	}
	return all
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: %s, want %s", what, g, w)
	}
}

// arrivals stores what a server received.
type arrivals struct {
	mu      sync.Mutex
	all     []string
	arrived chan struct{} // gets a value for each arrival
}

func newArrivals() *arrivals { return &arrivals{arrived: make(chan struct{}, 1000)} }

func (a *arrivals) add(text string) {
	a.mu.Lock()
	a.all = append(a.all, text)
	a.mu.Unlock()
	a.arrived <- struct{}{}
}

func (a *arrivals) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.all...)
}

// slackServer is slacktest's server for the team T1, with messages that the test can read and answer.
type slackServer struct {
	*slacktest.Server
	*arrivals
	mu     sync.Mutex
	answer func(w http.ResponseWriter) // nil: success
}

func newSlackServer(t *testing.T) *slackServer {
	s := &slackServer{arrivals: newArrivals()}
	s.Server = slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/auth.test", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true,"team_id":"T1"}`) })
		c.Handle("/chat.postMessage", func(w http.ResponseWriter, r *http.Request) {
			s.add(r.FormValue("channel") + " " + r.FormValue("blocks"))
			s.mu.Lock()
			answer := s.answer
			s.mu.Unlock()
			if answer != nil {
				answer(w)
				return
			}
			_, _ = io.WriteString(w, `{"ok":true,"channel":"D1","ts":"1.1"}`)
		})
	})
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

func (s *slackServer) answerWith(answer func(w http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// webhookServer is an endpoint with a certificate.
type webhookServer struct {
	*arrivals
	server *httptest.Server
	roots  *x509.CertPool

	mu       sync.Mutex
	requests []*http.Request
	answer   func(w http.ResponseWriter)
}

func newWebhookServer(t *testing.T) *webhookServer {
	s := &webhookServer{arrivals: newArrivals(), roots: x509.NewCertPool()}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, r)
		answer := s.answer
		s.mu.Unlock()
		s.add(string(body))
		if answer != nil {
			answer(w)
		}
	}))
	s.server.StartTLS()
	s.roots.AddCert(s.server.Certificate())
	t.Cleanup(s.server.Close)
	return s
}

// dial connects to the server, whatever the host. Its certificate is for example.com.
func (s *webhookServer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, s.server.Listener.Addr().String())
}

func (s *webhookServer) answerWith(answer func(w http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *webhookServer) headers(name string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		all = append(all, r.Header.Get(name))
	}
	return all
}

func itoa(n int) string { return strconv.Itoa(n) }
