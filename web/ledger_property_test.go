package web

import (
	"context"
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
		client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", Transport: m.stand.Transport()})
		must(l.t, err)
		if first {
			l.metered = &metered{fixture: &fixture{now: now}}
			_, err = billing.Setup(l.t.Context(), billing.SetupOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL,
			})
			must(l.t, err)
		}
		must(l.t, o.Catalogue.ReadMeters(l.t.Context(), o.DB))
		m.reporter = billing.NewReporter(billing.ReporterOptions{
			DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, Log: log, Every: time.Minute, Rate: 1e6,
		})
		o.Reporter = m.reporter
		o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
			DB: o.DB, Client: client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now, Random: func() float64 { return 0.5 }, Log: log,
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
		id, err := models.EnsureUser(l.t.Context(), l.db, p.email, l.clock())
		must(l.t, err)
		must(l.t, models.SetSpendLimit(l.t.Context(), l.db, l.web.catalogue, l.clock(), p.email, id, limit))
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
