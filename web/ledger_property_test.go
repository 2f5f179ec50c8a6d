package web

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// The long form is `go test ./web -run TestLedgerSequences -sequences=1000`; -seed=N -sequences=1
// repeats one sequence.
var (
	sequences = flag.Int("sequences", 2, "how many sequences TestLedgerSequences runs on each database")
	firstSeed = flag.Uint64("seed", 1, "the seed of the first sequence; the next ones count up")
)

// TestLedgerSequences runs random sequences of everything that changes a ledger, through the API,
// signed webhooks and the reporter. The overage of each period must be the same everywhere: in the
// answers, the ledger, the records, the pages, the files, the history, the organization's summary,
// and on Stripe's invoices.
func TestLedgerSequences(t *testing.T) {
	for name, address := range map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres} {
		t.Run(name, func(t *testing.T) {
			total := map[string]int64{}
			var l *ledger // several sequences, with different people, share a database
			for i := range *sequences {
				if i%sequencesPerDatabase == 0 && l != nil {
					l.verify(t)
					l.close()
					l = nil
				}
				seed := *firstSeed + uint64(i)
				passed := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					if l == nil {
						l = newLedger(t, address)
					}
					l.begin(t, seed)
					l.sequence()
					for what, n := range l.counts {
						total[what] += n
					}
				})
				if !passed && l != nil {
					l.close()
					l = nil
				}
			}
			if l != nil {
				l.verify(t)
				l.close()
			}
			t.Logf("seeds %d to %d: %v", *firstSeed, *firstSeed+uint64(*sequences)-1, total)
		})
	}
}

const sequencesPerDatabase = 20

// ledger is a world of people and organizations, and the model of what it must show. The model
// knows the requests, the answers, and the changes at Stripe.
type ledger struct {
	*metered // the running process; restart replaces it
	t        *testing.T
	rng      *rand.Rand
	url      string
	process  *process
	database *process // drops the database
	prefix   string   // of names
	prices   map[string]string

	people []*ledgerPerson
	orgs   []*ledgerOrg
	payers []*ledgerPayer
	due    []ledgerDue
	sealed time.Time // when the reporter last sealed and delivered everything
	keys   int
	trail  []string
	counts map[string]int64
	doing  string // the current step, for messages
}

// ledgerPerson is a person with their current email, and their identity if a call linked one.
type ledgerPerson struct {
	name, email string
	addresses   int
	id          uuid.UUID
	team, slack string
	// memberships are the organizations that the person joined, with the times.
	memberships []ledgerMembership
	payer       *ledgerPayer // of the person's own subscriptions
	events      []*ledgerEvent
	holds       []*ledgerHold
	browser     *browser
	shown       string // the answer to a check when the pages were last compared
}

type ledgerMembership struct {
	since time.Time
	org   *ledgerOrg
}

// ledgerOrg is an organization. Its plan comes from Stripe or was assigned by hand.
type ledgerOrg struct {
	name, team string
	id         uuid.UUID
	byHand     bool
	payer      *ledgerPayer
	admin      *ledgerPerson
}

// ledgerEvent is an event of the ledger with the figures of its answer.
type ledgerEvent struct {
	id, key              string
	at, recorded         time.Time
	quantity, over, cent int64
	plan                 string
	payer                *ledgerPayer // nil: no subscription at Stripe pays
	minute, sent         time.Time    // of its report, and when that was first sent, as read at the end
}

type ledgerHold struct {
	id                          string
	created, expires            time.Time
	quantity, over, cents, rate int64
}

// ledgerDue is a scheduled action.
type ledgerDue struct {
	at   time.Time
	what string
	do   func()
}

// newLedger creates a database and a process. close ends both.
func newLedger(t *testing.T, address func(testing.TB) string) *ledger {
	l := &ledger{t: t, prices: map[string]string{}, database: &process{TB: t}}
	l.url = address(l.database)
	l.start(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	var objects []models.StripeObject
	must(t, l.db.NewSelect().Model(&objects).Scan(t.Context()))
	for _, o := range objects {
		l.prices[o.Name] = o.StripeID
	}
	return l
}

func (l *ledger) close() {
	l.process.stop()
	l.database.stop()
}

// begin starts a sequence, in March of the next year. Its people have the seed in their names.
func (l *ledger) begin(t *testing.T, seed uint64) {
	t.Cleanup(func() {
		if t.Failed() {
			name := t.Name()[:strings.LastIndex(t.Name(), "/")]
			t.Logf("repeat it with: go test ./web -run '%s' -sequences=1 -seed=%d\n%s", name, seed, strings.Join(l.trail, "\n"))
		}
	})
	l.t, l.process.TB, l.database.TB = t, t, t
	l.rng, l.counts, l.prefix = rand.New(rand.NewPCG(seed, 7)), map[string]int64{}, fmt.Sprintf("s%d-", seed)
	l.people, l.orgs, l.payers, l.due, l.trail = nil, nil, nil, nil, nil
	l.set(time.Date(l.clock().Year()+1, 3, 2, 0, 0, 0, 0, time.UTC).Add(time.Duration(l.rng.IntN(20*24*60)) * time.Minute))
	l.sealed = l.clock()
}

// verify recounts the whole ledger.
func (l *ledger) verify(t *testing.T) {
	t.Helper()
	must(t, models.Verify(t.Context(), l.db, func(d models.Difference) { t.Errorf("a recount differs: %s", d) }))
}

// process collects the cleanups of a process.
type process struct {
	testing.TB
	cleanups []func()
}

func (p *process) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *process) stop() {
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
	p.cleanups = nil
}

// start runs a process on the ledger's database. All processes use the same stand-in for Stripe.
func (l *ledger) start(now time.Time) {
	p := &process{TB: l.t}
	m := &metered{}
	first := l.metered == nil
	m.fixture = newFixture(p, l.url, func(o *Options) {
		if first {
			m.stand = stripetest.New(stripetest.Options{Now: func() time.Time { return l.clock() }, Rand: rand.New(rand.NewPCG(1, 2))})
		} else {
			m.stand = l.stand
		}
		log := slog.New(slog.DiscardHandler)
		var err error
		m.client, err = billing.NewClient(billing.ClientOptions{Key: "sk_test_1", Transport: m.stand.Transport()})
		must(l.t, err)
		if first {
			l.metered = &metered{fixture: &fixture{now: now}}
			_, err = billing.Setup(l.t.Context(), billing.SetupOptions{
				DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL,
			})
			must(l.t, err)
		}
		must(l.t, o.Catalogue.ReadMeters(l.t.Context(), o.DB))
		m.reporter = billing.NewReporter(billing.ReporterOptions{
			DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Now: o.Now, Log: log, Every: time.Minute, Rate: 1e6,
		})
		o.Reporter = m.reporter
		o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
			DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now, Random: func() float64 { return 0.5 }, Log: log,
		})
	})
	m.set(now)
	l.metered, l.process = m, p
	if first {
		// The daily comparison with Stripe would find changes at moments that the sequence does not
		// choose.
		_, err := m.db.NewUpdate().Model((*models.StripeState)(nil)).Set("resynced_at = ?", now.AddDate(1000, 0, 0)).
			Where("id = 1").Exec(l.t.Context())
		must(l.t, err)
	}
	m.web.webhooks.Start(context.Background())
	p.Cleanup(m.web.webhooks.Stop)
	// Browsers stay signed in.
	for _, person := range l.people {
		person.reconnect(m.fixture)
	}
	for _, o := range l.orgs {
		if o.admin != nil {
			o.admin.reconnect(m.fixture)
		}
	}
}

func (p *ledgerPerson) reconnect(f *fixture) {
	if p.browser != nil {
		p.browser.f = f
	}
}

func (l *ledger) restart() {
	now := l.clock()
	l.process.stop()
	l.start(now)
}

// logf adds a line to the trail, which is shown if the test fails.
func (l *ledger) logf(format string, args ...any) {
	l.doing = l.clock().Format("01-02 15:04:05 ") + fmt.Sprintf(format, args...)
	l.trail = append(l.trail, l.doing)
}

func (l *ledger) failf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s: %s", l.doing, fmt.Sprintf(format, args...))
}

// advance lets time pass, and runs the actions that are due.
func (l *ledger) advance(d time.Duration) {
	target := l.clock().Add(d).Truncate(time.Microsecond)
	for {
		i := -1
		for j := range l.due {
			if !l.due[j].at.After(target) && (i < 0 || l.due[j].at.Before(l.due[i].at)) {
				i = j
			}
		}
		if i < 0 {
			break
		}
		next := l.due[i]
		l.due = slices.Delete(l.due, i, i+1)
		if next.at.After(l.clock()) {
			l.set(next.at)
		}
		l.logf("%s", next.what)
		next.do()
	}
	l.set(target)
	if target.Sub(l.sealed) > 24*time.Hour {
		l.report()
	}
}

func (l *ledger) later(d time.Duration, what string, do func()) {
	l.due = append(l.due, ledgerDue{at: l.clock().Add(d).Truncate(time.Microsecond), what: what, do: do})
}

// report lets the reporter do everything it can do now.
func (l *ledger) report() {
	l.seal()
	l.deliver()
	l.sealed = l.clock()
}

func (p *ledgerPerson) org(at time.Time) (org *ledgerOrg) {
	for _, m := range p.memberships {
		if !m.since.After(at) {
			org = m.org
		}
	}
	return org
}

// payerOf returns the payer of a plan that a person had at a moment.
func (l *ledger) payerOf(p *ledgerPerson, plan string, at time.Time) *ledgerPayer {
	if l.web.catalogue.PlanOf(models.PlanID(plan)).Type == models.Team {
		if org := p.org(at); org != nil {
			return org.payer
		}
		return nil
	}
	if plan == string(models.FreePlan) {
		return nil
	}
	return p.payer
}

// identity returns the fields by which a call identifies a person.
func (p *ledgerPerson) identity(l *ledger) string {
	switch {
	case p.slack != "" && l.rng.IntN(2) == 0:
		return fmt.Sprintf(`"slack_team_id": %q, "slack_user_id": %q`, p.team, p.slack)
	case p.slack != "":
		return fmt.Sprintf(`"email": %q, "slack_team_id": %q, "slack_user_id": %q`, p.email, p.team, p.slack)
	}
	return fmt.Sprintf(`"email": %q`, p.email)
}

// decisionAnswer contains the fields of a decision that the model checks.
type decisionAnswer struct {
	Allowed          bool
	Reason           *string
	Plan             string
	Used, Held       int64
	Included         int64
	Remaining        int64
	Overage          int64
	OverageRateCents int64  `json:"overage_rate_cents"`
	OverageCents     int64  `json:"overage_cents"`
	SpendLimitCents  *int64 `json:"spend_limit_cents"`
	Period           struct{ Start, End time.Time }
	EventID          *string `json:"event_id"`
	Replayed         bool
	Hold             *struct {
		ID, State string
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func (l *ledger) ask(path, body string) (a decisionAnswer, status int, raw string) {
	l.t.Helper()
	answer := l.post(path, body)
	l.counts["calls"]++
	if answer.status == 200 {
		must(l.t, json.Unmarshal([]byte(answer.raw), &a))
	}
	return a, answer.status, answer.raw
}

// tally is what the model expects of a person in a period.
type tally struct{ used, over, cents, held, overHeld, centsHeld int64 }

func (l *ledger) tally(p *ledgerPerson, start, end time.Time) (s tally) {
	for _, e := range p.events {
		if !e.at.Before(start) && e.at.Before(end) {
			s.used, s.over, s.cents = s.used+e.quantity, s.over+e.over, s.cents+e.cent
		}
	}
	p.holds = slices.DeleteFunc(p.holds, func(h *ledgerHold) bool { return !h.expires.After(l.clock()) })
	for _, h := range p.holds {
		if !h.created.Before(start) && h.created.Before(end) {
			s.held, s.overHeld, s.centsHeld = s.held+h.quantity, s.overHeld+h.over, s.centsHeld+h.cents
		}
	}
	return s
}

// decide checks a decision against the model, and returns the overage that it must have.
func (l *ledger) decide(p *ledgerPerson, a decisionAnswer, quantity int64) (over int64) {
	l.t.Helper()
	s := l.tally(p, a.Period.Start, a.Period.End)
	over = max(0, quantity-max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)))
	rate, reason := a.OverageRateCents, ""
	switch {
	case over == 0:
	case rate == 0:
		reason = "included_exhausted"
	case l.believed(p, a.Plan).pastDue():
		reason = "payment_past_due"
	case a.SpendLimitCents != nil && s.cents+s.centsHeld+over*rate > *a.SpendLimitCents:
		reason = "spend_limit_reached"
	}
	if got := *or(a.Reason, ""); got != reason || a.Allowed != (reason == "") {
		l.failf("allowed is %t for the reason %q, want %q; %+v", a.Allowed, got, reason, s)
	}
	if want := l.web.catalogue.PlanOf(models.PlanID(a.Plan)).OverageRateCents; rate != 0 && rate != want {
		l.failf("the rate is %d, want %d", rate, want)
	}
	return over
}

// standing checks the figures of the latest answer.
func (l *ledger) standing(p *ledgerPerson, a decisionAnswer) {
	l.t.Helper()
	s := l.tally(p, a.Period.Start, a.Period.End)
	if a.Used != s.used || a.Overage != s.over || a.OverageCents != s.cents || a.Held != s.held {
		l.failf("%s has %d used, %d overage, %d cents and %d held, want %+v, in %s to %s",
			p.name, a.Used, a.Overage, a.OverageCents, a.Held, s, a.Period.Start, a.Period.End)
	}
	if want := max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)); a.Remaining != want {
		l.failf("%s has %d left, want %d", p.name, a.Remaining, want)
	}
}

func or[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}

func (l *ledger) key() string {
	l.keys++
	return fmt.Sprintf("key %d", l.keys)
}

func (l *ledger) quantity() int64 {
	if l.rng.IntN(3) == 0 {
		return 1 + l.rng.Int64N(120)
	}
	return 1 + l.rng.Int64N(15)
}

func (l *ledger) consume(p *ledgerPerson, identity string) {
	l.t.Helper()
	e := &ledgerEvent{key: l.key(), at: l.clock(), recorded: l.clock(), quantity: l.quantity()}
	l.logf("%s consumes %d, identified by %s", p.name, e.quantity, identity)
	body := fmt.Sprintf(`{%s, "quantity": %d, "idempotency_key": %q}`, identity, e.quantity, e.key)
	a, status, raw := l.ask("/v1/consume", body)
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	over := l.decide(p, a, e.quantity)
	if a.Allowed {
		e.id, e.over, e.cent, e.plan = *a.EventID, over, over*a.OverageRateCents, a.Plan
		e.payer = l.payerOf(p, a.Plan, e.at)
		p.events = append(p.events, e)
	}
	l.standing(p, a)
	if a.Allowed && l.rng.IntN(4) == 0 {
		if _, _, again := l.ask("/v1/consume", body); !sameFigures(raw, again) {
			l.failf("the retry has another answer:\n%s\n%s", raw, again)
		}
	}
}

// sameFigures compares the figures of an answer with those of its replay. The Slack message may
// differ.
func sameFigures(first, again string) bool {
	var a, b decisionAnswer
	if json.Unmarshal([]byte(first), &a) != nil || json.Unmarshal([]byte(again), &b) != nil || !b.Replayed {
		return false
	}
	return a.Used == b.Used && a.Overage == b.Overage && a.OverageCents == b.OverageCents && *a.EventID == *b.EventID && a.Period == b.Period
}

func (l *ledger) hold(p *ledgerPerson) {
	l.t.Helper()
	h := &ledgerHold{created: l.clock(), quantity: l.quantity()}
	ttl := 30 + l.rng.IntN(3570)
	identity := p.identity(l)
	l.logf("%s holds %d for %d s", p.name, h.quantity, ttl)
	body := fmt.Sprintf(`{%s, "quantity": %d, "idempotency_key": %q, "ttl_seconds": %d}`, identity, h.quantity, l.key(), ttl)
	a, status, raw := l.ask("/v1/holds", body)
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	if over := l.decide(p, a, h.quantity); a.Allowed {
		h.id, h.expires, h.over, h.cents, h.rate = a.Hold.ID, a.Hold.ExpiresAt, over, over*a.OverageRateCents, a.OverageRateCents
		if want := h.created.Add(time.Duration(ttl) * time.Second); !h.expires.Equal(want) && !h.expires.Equal(a.Period.End.Add(30*time.Minute)) {
			l.failf("the hold expires at %s, want %s", h.expires, want)
		}
		p.holds = append(p.holds, h)
	}
	l.standing(p, a)
}

// settle settles or releases the first open hold of a person.
func (l *ledger) settle(p *ledgerPerson) {
	l.t.Helper()
	if l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0)); len(p.holds) == 0 {
		return
	}
	h := p.holds[0]
	if l.rng.IntN(4) == 0 {
		l.logf("%s releases a hold of %d", p.name, h.quantity)
		a, status, raw := l.ask("/v1/holds/"+h.id+"/release", "")
		if status != 200 {
			l.failf("status %d: %s", status, raw)
		}
		p.holds = p.holds[1:]
		l.standing(p, a)
		return
	}
	quantity := 1 + l.rng.Int64N(h.quantity)
	l.logf("%s settles %d of a hold of %d", p.name, quantity, h.quantity)
	a, status, raw := l.ask("/v1/holds/"+h.id+"/settle", fmt.Sprintf(`{"quantity": %d}`, quantity))
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	p.holds = p.holds[1:]
	s := l.tally(p, a.Period.Start, a.Period.End)
	now := max(0, quantity-max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)))
	over := min(max(0, quantity-(h.quantity-h.over)), now)
	e := &ledgerEvent{
		id: *a.EventID, at: l.clock(), recorded: l.clock(), quantity: quantity, over: over, cent: over * h.rate, plan: a.Plan,
	}
	if !e.at.Before(a.Period.End) {
		e.at = h.created
	}
	e.payer = l.payerOf(p, a.Plan, e.at)
	p.events = append(p.events, e)
	l.standing(p, a)
}

// pastLedger is a period of the history.
type pastLedger struct {
	Period                  struct{ Start, End time.Time }
	Plan                    string
	Used, Included, Overage int64
	OverageCents            int64 `json:"overage_cents"`
}

func (l *ledger) history(p *ledgerPerson) []pastLedger {
	l.t.Helper()
	var all struct{ Periods []pastLedger }
	a := l.get("/v1/usage/" + p.email + "/history?months=36")
	if a.status != 200 {
		l.failf("history: %s", a.raw)
	}
	must(l.t, json.Unmarshal([]byte(a.raw), &all))
	return all.Periods
}

func sum(all []pastLedger) (s tally) {
	for _, p := range all {
		s.used, s.over, s.cents = s.used+p.Used, s.over+p.Overage, s.cents+p.OverageCents
	}
	return s
}

// recordPast records usage from up to three weeks ago.
func (l *ledger) recordPast(p *ledgerPerson) {
	l.t.Helper()
	age := time.Duration(l.rng.Int64N(int64(time.Hour)))
	if l.rng.IntN(2) == 0 {
		age *= time.Duration(1 + l.rng.IntN(500))
	}
	e := &ledgerEvent{key: l.key(), at: l.clock().Add(-age).Truncate(time.Microsecond), recorded: l.clock(), quantity: l.quantity()}
	l.logf("%s used %d at %s, which is recorded now", p.name, e.quantity, e.at.Format("01-02 15:04:05"))
	before := sum(l.history(p))
	a := l.post("/v1/events", fmt.Sprintf(`{"events": [{%s, "quantity": %d, "idempotency_key": %q, "occurred_at": %q}]}`,
		p.identity(l), e.quantity, e.key, e.at.Format(time.RFC3339Nano)))
	a.want(l.t, 200, map[string]any{"results.status": "recorded"})
	e.id = a.body["results"].([]any)[0].(map[string]any)["event_id"].(string)
	history := l.history(p)
	after := sum(history)
	e.over, e.cent = after.over-before.over, after.cents-before.cents
	if after.used-before.used != e.quantity {
		l.failf("%d more units are in the history, want %d", after.used-before.used, e.quantity)
	}
	i := slices.IndexFunc(history, func(h pastLedger) bool { return !e.at.Before(h.Period.Start) && e.at.Before(h.Period.End) })
	if i < 0 {
		l.failf("no period of the history contains the event: %+v", history)
	}
	of := history[i]
	s := l.tally(p, of.Period.Start, of.Period.End)
	free := max(0, of.Included-(s.used-s.over)-(s.held-s.overHeld))
	e.plan = of.Plan
	rate := l.web.catalogue.PlanOf(models.PlanID(e.plan)).OverageRateCents
	switch over := max(0, e.quantity-free); {
	case e.over > over: // fewer are billed at a spend limit, and none in a trial or while a payment is past due
		l.failf("%d units are billed, want at most %d", e.over, over)
	case e.cent != e.over*rate:
		l.failf("%d units cost %d cents, want the rate %d", e.over, e.cent, rate)
	}
	e.payer = l.payerOf(p, e.plan, e.at)
	p.events = append(p.events, e)
}

func (l *ledger) newPerson(name string) *ledgerPerson {
	p := &ledgerPerson{name: name, email: l.prefix + name + "@example.com"}
	u, err := models.SetUser(l.t.Context(), l.db, l.clock(), p.email, models.UserChange{})
	must(l.t, err)
	p.id = u.ID
	p.payer = l.newPayer("cus_"+l.prefix+name, map[string]string{"tollgate_user": u.ID.String()}, []string{"starter", "pro"})
	l.people = append(l.people, p)
	return p
}

func (l *ledger) newOrg(name, team string, byHand bool) *ledgerOrg {
	team = strings.ToUpper(strings.ReplaceAll(team+l.prefix, "-", ""))
	o := &ledgerOrg{name: name, team: team, byHand: byHand, id: l.organization(l.prefix+name, team)}
	if !byHand {
		o.payer = l.newPayer("cus_"+l.prefix+name, map[string]string{"tollgate_organization": o.id.String()}, []string{"team", "business"})
	}
	l.orgs = append(l.orgs, o)
	return o
}

// seesAll creates the admin, who opens the organization's page and uses nothing.
func (l *ledger) seesAll(o *ledgerOrg) {
	admin := models.Admin
	o.admin = &ledgerPerson{name: o.name + "-admin", email: l.prefix + o.name + "-admin@example.com"}
	_, err := models.SetUser(l.t.Context(), l.db, l.clock(), o.admin.email, models.UserChange{OrganizationID: &o.id, Role: &admin})
	must(l.t, err)
}

// join adds a person to an organization, or removes them from theirs.
func (l *ledger) join(p *ledgerPerson, o *ledgerOrg) {
	l.t.Helper()
	change := models.UserChange{Leaves: true}
	if o != nil {
		l.logf("%s joins %s", p.name, o.name)
		change = models.UserChange{OrganizationID: &o.id}
	} else {
		l.logf("%s leaves", p.name)
	}
	if p.org(l.clock()) != o {
		p.team, p.slack = "", ""
		p.memberships = append(p.memberships, ledgerMembership{since: l.clock(), org: o})
	}
	_, err := models.SetUser(l.t.Context(), l.db, l.clock(), p.email, change)
	must(l.t, err)
}

// renamed gives a person a Slack identity, or a new address through a call with their identity.
func (l *ledger) renamed(p *ledgerPerson) {
	o := p.org(l.clock())
	switch {
	case o == nil:
		return
	case p.slack == "":
		p.team, p.slack = o.team, fmt.Sprintf("U%s%d", strings.ToUpper(p.name), p.addresses)
	default:
		p.addresses++
		p.email = fmt.Sprintf("%s%s%d@example.com", l.prefix, p.name, p.addresses)
	}
	l.consume(p, fmt.Sprintf(`"email": %q, "slack_team_id": %q, "slack_user_id": %q`, p.email, p.team, p.slack))
}

// sequence runs random steps, then lets all periods end, and compares.
func (l *ledger) sequence() {
	l.counts["sequences"]++
	acme := l.newOrg("acme", "T1", false)
	hand := l.newOrg("hand", "T2", true)
	for i, name := range []string{"ada", "bob", "cleo", "dora"} {
		p := l.newPerson(name)
		if i < 2 {
			l.advance(time.Second)
			l.join(p, acme)
		}
	}
	l.seesAll(acme)
	for range 30 {
		l.pause()
		for range 1 + l.rng.IntN(4) {
			l.step(acme, hand)
		}
		if l.rng.IntN(6) == 0 {
			l.compare()
		}
	}
	for _, payer := range l.payers {
		if s := payer.open(); s != nil && !s.atEnd {
			l.cancel(s, "at the end")
		}
	}
	l.balance() // balances cover 35 days
	for i := 0; len(l.due) > 0; i++ {
		l.advance(12 * time.Hour)
		if i%8 == 0 {
			p := l.people[l.rng.IntN(len(l.people))]
			l.consume(p, p.identity(l))
		}
	}
	l.compare()
	l.advance(3 * time.Hour)
	l.report()
	l.invoices()
	l.balance()
	l.compareBalances()
}

// pause lets seconds to one and a half days pass.
func (l *ledger) pause() {
	d := time.Duration(1 + l.rng.Int64N(int64(time.Minute)))
	switch l.rng.IntN(5) {
	case 0:
		d *= 60
	case 1, 2:
		d *= time.Duration(60 + l.rng.IntN(2000))
	}
	l.advance(d)
}

// step does one random thing.
func (l *ledger) step(acme, hand *ledgerOrg) {
	p := l.people[l.rng.IntN(len(l.people))]
	payer := p.payer
	if l.rng.IntN(2) == 0 {
		payer = acme.payer
	}
	s := payer.open()
	switch n := l.rng.IntN(100); {
	case n < 38:
		l.consume(p, p.identity(l))
	case n < 48:
		l.hold(p)
		if l.rng.IntN(2) == 0 {
			l.advance(time.Duration(l.rng.IntN(20)) * time.Second)
			l.settle(p)
		}
	case n < 58:
		l.settle(p)
	case n < 68:
		l.recordPast(p)
	case n < 73:
		l.renamed(p)
	case n < 77:
		l.join(p, []*ledgerOrg{acme, hand, nil}[l.rng.IntN(3)])
	case n < 80:
		plan := []models.PlanID{"team", "business", models.FreePlan}[l.rng.IntN(3)]
		l.logf("%s gets the plan %s by hand", hand.name, plan)
		l.fixture.subscribe(models.Subscriber{OrganizationID: &hand.id}, plan)
	case n < 83:
		limit := new(int64(l.rng.IntN(3000)))
		if l.rng.IntN(2) == 0 {
			limit = nil
		}
		l.logf("%s sets a spend limit of %v", p.name, *or(limit, -1))
		must(l.t, models.SetSpendLimit(l.t.Context(), l.db, l.web.catalogue, l.clock(), p.email, p.email, limit))
	case n < 86:
		l.report()
	case n < 88:
		l.logf("a restart")
		l.restart()
	case s == nil:
		trial := time.Duration(0)
		if l.rng.IntN(5) == 0 {
			trial = time.Duration(1+l.rng.IntN(5)) * 24 * time.Hour
		}
		l.buy(payer, payer.plans[l.rng.IntN(2)], trial)
	case (n == 92 || n == 93) && !s.atEnd && s.now.status == "active":
		l.reset(s)
		if l.rng.IntN(2) == 0 { // usually a period without a whole minute
			l.consume(p, p.identity(l))
			l.advance(time.Duration(1+l.rng.IntN(34)) * time.Second)
			l.consume(p, p.identity(l))
			l.reset(s)
		}
	case n < 94 && !s.atEnd:
		l.changePlan(s, payer.plans[l.rng.IntN(2)])
	case n < 97 && s.now.status == "active":
		l.setStatus(s, "past_due")
	case s.now.status == "past_due":
		l.setStatus(s, "active")
	case n >= 98 && !s.atEnd && s.now.status == "active":
		l.cancel(s, []string{"at the end", "with an invoice", "without an invoice"}[l.rng.IntN(3)])
	}
}

// compare compares everything that is shown with the model.
func (l *ledger) compare() {
	l.t.Helper()
	l.counts["comparisons"]++
	cents := map[*ledgerOrg]int64{}
	for _, p := range l.people {
		l.logf("compare %s", p.name)
		now, status, raw := l.ask("/v1/check", fmt.Sprintf(`{"email": %q}`, p.email))
		if status != 200 {
			l.failf("status %d: %s", status, raw)
		}
		l.decide(p, now, 1)
		l.standing(p, now)
		if o := p.org(l.clock()); o != nil {
			cents[o] += now.OverageCents
		}
		l.compareHistory(p, now)
		if raw != p.shown || l.rng.IntN(4) == 0 { // pages take most of the time
			l.comparePages(p, now)
			p.shown = raw
		}
		l.compareRows(p)
	}
	for _, o := range l.orgs {
		l.logf("compare %s", o.name)
		a := l.get("/v1/organizations/" + o.id.String() + "/usage")
		if got := a.number("overage_cents"); a.status != 200 || got != cents[o] {
			l.failf("the organization's overage is %d cents, want %d: %s", got, cents[o], a.raw)
		}
	}
	l.logf("compare /org")
	shown := l.page(l.orgs[0].admin, "/org").section("cost")
	if plan := l.get("/v1/organizations/" + l.orgs[0].id.String() + "/usage").body["plan"]; shown == nil && plan == "free" {
		return // without its own plan, the organization pays nothing
	}
	if text := textOf(shown); strings.Contains(text, "Overage:") || cents[l.orgs[0]] > 0 {
		if want := " " + l.web.catalogue.FormatMoney(cents[l.orgs[0]]) + " So far in this period"; !strings.Contains(text, want) {
			l.failf("the page says %q, want %q", text, want)
		}
	}
}

// compareHistory checks that each event is in one period of the history, and that each period has
// the sums of its events.
func (l *ledger) compareHistory(p *ledgerPerson, now decisionAnswer) {
	l.t.Helper()
	history := l.history(p)
	for _, h := range history {
		if s := l.tally(p, h.Period.Start, h.Period.End); h.Used != s.used || h.Overage != s.over || h.OverageCents != s.cents {
			l.failf("the history of %s to %s is %+v, want %+v", h.Period.Start, h.Period.End, h, s)
		}
	}
	if got, want := sum(history), l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0)); got.used != want.used || got.cents != want.cents {
		l.failf("the history of %s has %+v, want %+v", p.name, got, want)
	}
	if len(history) > 0 && history[0].Period == now.Period && history[0].OverageCents != now.OverageCents {
		l.failf("the history's current period is %+v, the answer %+v", history[0], now)
	}
}

func (l *ledger) page(p *ledgerPerson, path string) page {
	l.web.strangers = newClientLimit(time.Now, l.web.log) // all people have one address
	if p.browser == nil {
		p.browser = l.signedIn(p.email)
	}
	shown := p.browser.get(path)
	if shown.status == 303 {
		p.browser = l.signedIn(p.email)
		shown = p.browser.get(path)
	}
	if shown.status != 200 {
		l.failf("%s answered %d", path, shown.status)
	}
	return shown
}

// comparePages checks /usage and its file.
func (l *ledger) comparePages(p *ledgerPerson, now decisionAnswer) {
	l.t.Helper()
	if now.OverageRateCents > 0 {
		money := l.web.catalogue.FormatMoney
		// Units at one rate are shown with it, others only with their price.
		count, price := "Overage: "+models.FormatCount(now.Overage)+" ", " "+money(now.OverageCents)
		if text := textOf(l.page(p, "/usage").section("cost")); !strings.Contains(text, count) || !strings.Contains(text, price) {
			l.failf("the page says %q, want %q and %q", text, count, price)
		}
	}
	var total tally
	for _, row := range l.page(p, "/usage.csv").csv(l.t)[1:] {
		if row[0] != "period" {
			continue
		}
		total.used, total.over, total.cents = total.used+whole(row[4]), total.over+whole(row[10]), total.cents+whole(row[11])
		if start, err := time.Parse(time.RFC3339, row[1]); err != nil || start.Equal(now.Period.Start) && whole(row[11]) != now.OverageCents {
			l.failf("the file has %q, want %d cents", row, now.OverageCents)
		}
	}
	want := l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0))
	if total.used != want.used || total.over != want.over || total.cents != want.cents {
		l.failf("the file has %+v, want %+v", total, want)
	}
}

// compareRows checks the ledger and the records themselves.
func (l *ledger) compareRows(p *ledgerPerson) {
	l.t.Helper()
	var events []models.UsageEvent
	must(l.t, l.db.NewSelect().Model(&events).Where("user_id = ?", p.id).Scan(l.t.Context()))
	var records []models.UsageRecord
	must(l.t, l.db.NewSelect().Model(&records).Where("user_id = ?", p.id).Scan(l.t.Context()))
	if len(events) != len(p.events) {
		l.failf("%s has %d events, want %d", p.name, len(events), len(p.events))
	}
	of := map[int64]models.Period{}
	for _, r := range records {
		of[r.ID] = r.Period()
		held := l.tally(p, r.Period().Start, r.Period().End)
		if lapsed := r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(l.clock()); !lapsed && // otherwise the next decision gives them back
			(r.UnitsHeld != held.held || r.OverageHeld != held.overHeld || r.OverageCentsHeld != held.centsHeld) {
			l.failf("the record of %v holds %d, %d overage, %d cents, want %+v", r.Period(), r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld, held)
		}
		if s := held; r.SuggestionsUsed != s.used || r.OverageUsed != s.over || r.OverageCents != s.cents {
			l.failf("the record of %v has %d used, %d overage, %d cents, want %+v", r.Period(), r.SuggestionsUsed, r.OverageUsed, r.OverageCents, s)
		}
	}
	byID := map[string]*ledgerEvent{}
	for _, e := range p.events {
		byID[e.id] = e
	}
	for _, e := range events {
		want := byID[e.ID.String()]
		customer := ""
		if want != nil && want.payer != nil {
			customer = want.payer.customer
		}
		switch period := of[e.RecordID]; {
		case want == nil || e.Quantity != want.quantity || e.OverageQuantity != want.over || e.OverageCents != want.cent ||
			string(e.PlanID) != want.plan:
			l.failf("the event %+v is stored, want %+v", e, want)
		case !e.OccurredAt.Equal(want.at) || !period.Contains(e.OccurredAt):
			l.failf("the event of %s is in the record of %v", e.OccurredAt, period)
		case e.OverageQuantity > 0 && *or(e.StripeCustomerID, "") != customer:
			l.failf("the event's overage is paid by %q, want %q", *or(e.StripeCustomerID, ""), customer)
		}
	}
}
