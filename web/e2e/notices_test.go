//go:build linux

package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

// What people get when they reach a threshold or a limit of the plan business, with 100 included
// units at 20 cents for each extra one.
const (
	at80    = "Running low: 80 of 100 suggestions (80%)"
	at95    = "Almost used up: 95 of 100 suggestions (95%)"
	at100   = "Extra suggestions are billed: 100 of 100 suggestions (100%)"
	at101   = "Extra suggestions are billed: all 100 included suggestions and 1 extra ($0.20 so far)"
	atLimit = "Spend limit reached: all 100 included suggestions and 2 extra ($0.40 so far)"
	atNext  = "Spend limit reached: all 100 included suggestions and 4 extra ($0.80 so far)"
)

// Each notice arrives once in Slack and once by email, whatever is retried, however many processes
// deliver, and if a process is killed between the send and the commit. A raised limit and a new
// billing period have their own notices. Webhooks are tested in models/notify, because the program
// refuses addresses of this machine.
func TestNoticesArriveOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			processes := 4
			if kind.name == "SQLite" {
				processes = 1
			}
			n := newNoticeSite(t, kind.database(t), processes)
			n.reachThresholds()
			n.killBetweenSendAndCommit()
			n.beginPeriod()
			n.endAttempts()
			n.unsubscribe()
			n.client.http.CloseIdleConnections() // a server waits for them before it stops
			n.stopAll()
			n.want("ada", at101, at101)
			n.want("bob", at80, at95, at100, at101)
			n.want("eve", atLimit, atNext)
			n.want("kim", at101)
			n.judge()
			n.verify()
		})
	}
}

// noticeSite is an organization whose members get notices.
type noticeSite struct {
	*paidWorld
	inbox *inbox
	// acme is the organization's subscription.
	acme *paid
	// browsers are signed in, by name.
	browsers map[string]*http.Client
}

// noticePatience is how long notices may take to arrive. With one process, a few seconds are usual.
const noticePatience = 30 * time.Second

func newNoticeSite(t *testing.T, database string, processes int) *noticeSite {
	t.Helper()
	in, issuer := newInbox(t), slackIssuer(t)
	s, account := newStripeSite(t, database, processes, func(i int, p *server) {
		p.args = append(p.args, "--slack-api-base", in.slackAPI(i), "--oidc-issuer", issuer, "--log-level", "debug")
		p.env = append(p.env, "SLACK_BOT_TOKEN=xoxb-1", "SLACK_CLIENT_ID="+inboxClient, "SLACK_CLIENT_SECRET=secret",
			"TOLLGATE_SMTP="+in.smtp(i))
		p.log.all = true
	})
	n := &noticeSite{paidWorld: &paidWorld{site: s, account: account}, inbox: in, browsers: map[string]*http.Client{}}
	n.setUp()
	organization := s.command("organization", "create", "Acme", "--slack-team", inboxTeam)
	for _, name := range []string{"ada", "bob", "eve", "kim"} {
		n.signIn(name)
	}
	n.acme = &paid{customer: "cus_acme", plan: "business", starts: []time.Time{time.Now().UTC().Truncate(time.Second).Add(-time.Hour)}}
	account.AddCustomer(n.acme.customer, map[string]string{"tollgate_organization": organization})
	n.acme.subscription = account.AddSubscription(stripetest.Subscription{
		Customer: n.acme.customer, PeriodStart: n.acme.starts[0], PeriodEnd: n.acme.starts[0].AddDate(0, 1, 0),
		Items: []stripetest.Item{{Price: n.prices["price:business"], Quantity: 4}, {Price: n.prices["overage:business"]}},
	})
	n.sendWebhook(n.acme, "customer.subscription.created", 0)
	n.periodBegins()
	return n
}

// signIn signs a person in with Slack, which verifies their address.
func (n *noticeSite) signIn(name string) {
	n.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	b := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	n.t.Cleanup(b.CloseIdleConnections)
	n.browsers[name] = b
	_, to := n.browse(b, http.MethodPost, n.servers[0], "/sign-in/slack", nil)
	asked := to.Query()
	back := url.Values{"code": {name + "." + asked.Get("nonce")}, "state": {asked.Get("state")}}
	if status, to := n.browse(b, http.MethodGet, n.servers[0], "/auth/callback?"+back.Encode(), nil); to.Path != "/usage" {
		n.t.Fatalf("the sign-in of %s ended with %d and %q", name, status, to)
	}
}

// browse makes a browser's request and returns the status and where it redirects.
func (n *noticeSite) browse(b *http.Client, method string, p *server, path string, form url.Values) (status int, to *url.URL) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+p.addr+path, strings.NewReader(form.Encode()))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Close = true
	response, err := b.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = response.Body.Close()
	if to, err = response.Location(); err != nil {
		to = &url.URL{}
	}
	return response.StatusCode, to
}

// periodBegins waits until the newest period of the subscription applies.
func (n *noticeSite) periodBegins() {
	n.t.Helper()
	n.webhooks.Wait()
	start := n.acme.starts[len(n.acme.starts)-1]
	eventually(n.t, "the organization's billing period begins", func() bool {
		d, err := n.client.insist(n.t.Context(), n.addresses(), 0, http.MethodGet, "/v1/usage/ada"+inboxDomain, nil).decision()
		if err != nil {
			n.t.Fatal(err)
		}
		return d.Plan == n.acme.plan && d.Period.Start.Equal(start)
	})
}

// consume makes a call with the person's Slack identity, which must be allowed.
func (n *noticeSite) consume(nth int, name, key string, quantity int) (d decision) {
	n.t.Helper()
	d, err := n.client.insist(n.t.Context(), n.addresses(), nth, http.MethodPost, "/v1/consume", body{
		"slack_team_id": inboxTeam, "slack_user_id": slackID(name), "quantity": quantity, "idempotency_key": key,
	}).decision()
	if err != nil || !d.Allowed || d.EventID == nil || d.Email != name+inboxDomain || d.Plan != n.acme.plan {
		n.t.Errorf("%s of %s was answered with %+v, %v", key, name, d, err)
	}
	return d
}

// use79 uses 79% of a person's included units, at which no notice is due.
func (n *noticeSite) use79(name string) {
	n.t.Helper()
	if d := n.consume(0, name, fmt.Sprint("79 in period ", len(n.acme.starts)), 79); d.Used != 79 || d.Included != 100 {
		n.t.Fatalf("%s used %d of %d, want 79 of 100", name, d.Used, d.Included)
	}
}

// retry makes a hundred concurrent calls with the same key and returns how many of them recorded
// the units.
func (n *noticeSite) retry(name, key string, quantity int) int64 {
	n.t.Helper()
	var recorded atomic.Int64
	spread(n.t.Context(), 25, 100, func(i int) {
		if d := n.consume(i, name, key, quantity); !d.Replayed {
			recorded.Add(1)
		}
	})
	return recorded.Load()
}

// limit sets a person's spend limit on /usage.
func (n *noticeSite) limit(name, amount string) {
	n.t.Helper()
	form := url.Values{"amount": {amount}}
	status, to := n.browse(n.browsers[name], http.MethodPost, n.servers[0], "/usage/spend-limit", form)
	if status != http.StatusSeeOther || to.Path != "/usage" {
		n.t.Fatalf("the spend limit %s was answered with %d and %q", amount, status, to)
	}
}

// reachThresholds takes Ada from 79 to 101% with one call, and Bob with 22 calls. Eve reaches her
// spend limit, raises it, and reaches it again.
func (n *noticeSite) reachThresholds() {
	n.t.Helper()
	for _, name := range []string{"ada", "bob", "eve"} {
		n.use79(name)
	}
	if recorded := n.retry("ada", "jump", 22); recorded != 1 {
		n.t.Errorf("%d of a hundred calls with one key were recorded, want 1", recorded)
	}
	for i := range 22 {
		n.consume(i, "bob", fmt.Sprint("step ", i), 1)
	}
	n.limit("eve", "0.50")
	n.consume(1, "eve", "to the limit", 23)
	n.limit("eve", "0.90")
	n.consume(2, "eve", "to the next limit", 2)
	n.arrived("")
	n.want("ada", at101)
	n.want("bob", at80, at95, at100, at101)
	n.want("eve", atLimit, atNext)
}

// killBetweenSendAndCommit kills the processes that send to Kim, when Slack and the mail server
// have accepted the messages and not yet answered.
func (n *noticeSite) killBetweenSendAndCommit() {
	n.t.Helper()
	n.use79("kim")
	holding, release := n.inbox.hold("kim")
	n.consume(0, "kim", "jump", 22)
	senders := map[int]bool{}
	for range 2 {
		select {
		case process := <-holding:
			senders[process] = true
		case <-time.After(noticePatience):
			n.t.Fatal("nothing was sent to kim")
		}
	}
	n.wantDeliveries("kim", "mail sending", "slack sending")
	var retries sync.WaitGroup
	retries.Go(func() {
		if recorded := n.retry("kim", "jump", 22); recorded != 0 {
			n.t.Errorf("%d retries were recorded", recorded)
		}
	})
	for process := range senders {
		if err := n.servers[process].crash(); err != nil {
			n.t.Error(err)
		}
	}
	release()
	for process := range senders {
		n.restart(n.servers[process])
	}
	retries.Wait()
}

// beginPeriod begins a billing period, in which Ada goes from 79 to 101% again.
func (n *noticeSite) beginPeriod() {
	n.t.Helper()
	// Stripe's times are whole seconds, and the usage must be before the end of the period.
	used := time.Now()
	eventually(n.t, "a whole second begins after the usage", func() bool { return time.Now().Truncate(time.Second).After(used) })
	n.reset(n.acme, 0)
	n.periodBegins()
	n.use79("ada")
	n.consume(1, "ada", "jump again", 22)
	n.arrived("kim")
	n.want("ada", at101, at101)
	n.want("kim", at101)
	n.wantDeliveries("kim", "mail sending", "slack sending") // until the leases of the killed processes end
}

// endAttempts ends the leases of the killed processes, or waits for their end in a long run. The
// messages are not sent again.
func (n *noticeSite) endAttempts() {
	n.t.Helper()
	patience := noticePatience
	if *soak > 0 {
		patience = 2 * time.Minute
	} else {
		db := n.open()
		if _, err := db.ExecContext(n.t.Context(), `UPDATE notice_deliveries SET leased_until = created_at WHERE state = 'sending'`); err != nil {
			n.t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			n.t.Fatal(err)
		}
	}
	within(n.t, patience, "the attempts of the killed processes are ended", func() bool {
		return !slices.ContainsFunc(n.deliveries("kim"), func(d string) bool { return strings.HasSuffix(d, " sending") })
	})
	n.wantDeliveries("kim", "mail unknown", "slack unknown")
	if recorded := n.retry("kim", "jump", 22); recorded != 0 {
		n.t.Errorf("%d retries were recorded", recorded)
	}
	n.arrived("")
	n.want("kim", at101)
}

// unsubscribe opens and uses an unsubscribe link, and an invalid one. No log has their tokens.
func (n *noticeSite) unsubscribe() {
	n.t.Helper()
	n.inbox.mu.Lock()
	link, err := url.Parse(n.inbox.unsubscribe["bob"])
	n.inbox.mu.Unlock()
	if err != nil || link.Query().Get("token") == "" {
		n.t.Fatalf("the unsubscribe link is %q, %v", link, err)
	}
	const invalid = "ANINVALIDTOKENOFTWENTYSIXX"
	tokens := map[string]int{link.Query().Get("token"): http.StatusOK, invalid: http.StatusNotFound}
	for _, p := range n.servers {
		for token, want := range tokens {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if status, _ := n.browse(http.DefaultClient, method, p, link.Path+"?token="+token, nil); status != want {
					n.t.Errorf("%s of an unsubscribe link: %d, want %d", method, status, want)
				}
			}
		}
		eventually(n.t, "the four requests are logged", func() bool { return p.log.count(`"route":"/unsubscribe"`) == 4 })
		for token := range tokens {
			if p.log.count(token) > 0 {
				n.t.Errorf("the log of %s has the token of an unsubscribe link", p.name)
			}
		}
	}
}

// arrived waits until nothing is left to deliver, except to one person.
func (n *noticeSite) arrived(except string) {
	n.t.Helper()
	db := n.open()
	defer func() { _ = db.Close() }()
	within(n.t, noticePatience, "all notices are delivered", func() bool {
		var left int
		if err := db.QueryRowContext(n.t.Context(), `SELECT (SELECT COUNT(*) FROM notices WHERE state = 'pending') +
			(SELECT COUNT(*) FROM notice_deliveries d JOIN users u ON u.id = d.recipient
				WHERE d.state IN ('pending', 'sending') AND u.email <> $1)`, except+inboxDomain).Scan(&left); err != nil {
			n.t.Fatal(err)
		}
		return left == 0
	})
}

// deliveries returns a person's deliveries, such as "mail sent", sorted.
func (n *noticeSite) deliveries(name string) (all []string) {
	n.t.Helper()
	db := n.open()
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(n.t.Context(), `SELECT d.channel || ' ' || d.state FROM notice_deliveries d JOIN users u ON u.id = d.recipient
		WHERE u.email = $1 ORDER BY 1`, name+inboxDomain)
	if err != nil {
		n.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		n.t.Fatal(err)
	}
	return all
}

func (n *noticeSite) wantDeliveries(name string, want ...string) {
	n.t.Helper()
	if got := n.deliveries(name); !slices.Equal(got, want) {
		n.t.Errorf("the deliveries to %s are %q, want %q", name, got, want)
	}
}

// want compares what a person got through each channel.
func (n *noticeSite) want(name string, want ...string) {
	n.t.Helper()
	slices.Sort(want)
	got := n.inbox.of(name)
	for _, channel := range slices.Sorted(maps.Keys(got)) {
		if !slices.Equal(got[channel], want) {
			n.t.Errorf("%s got %q by %s, want %q", name, got[channel], channel, want)
		}
	}
}
