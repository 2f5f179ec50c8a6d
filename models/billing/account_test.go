package billing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// Nothing is reported to another account, or to the same account's other mode.
func TestAnotherAccount(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.started.Store(true)
		d.must(d.account.check(d.ctx))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.stripe.SetAccount("acct_other")
		d.account.passed.Store(false)
		if err := d.account.check(d.ctx); !errors.Is(err, ErrOtherAccount) {
			t.Errorf("the contact with another account: %v", err)
		}
		d.deliver()
		if n := len(d.stripe.Events()); n != 0 {
			t.Errorf("%d events went to another account", n)
		}
		if s := d.status(); s.State.Stopped == nil || !strings.Contains(*s.State.Stopped, "acct_other") || s.State.AccountID != "acct_standin" {
			t.Errorf("the state is %+v", s.State)
		}
		d.stripe.SetAccount("acct_standin")
		d.account.refused.Store(nil)
		d.must(d.account.check(d.ctx))
		d.deliver()
		if n := len(d.stripe.Events()); n != 1 {
			t.Errorf("%d events went to the account, want 1", n)
		}
	})
}

// Callers at the same time cost one request. A caller that waits for it stops waiting with its
// context.
func TestTheAccountIsCheckedOnce(t *testing.T) {
	var d *reporterFixture
	var asked, answered chan struct{}
	onBoth(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		asked <- struct{}{}
		<-answered
		return d.stripe.Transport().RoundTrip(r)
	}), func(t *testing.T, of *reporterFixture) {
		d, asked, answered = of, make(chan struct{}, 5), make(chan struct{})
		results := make(chan error)
		check := func() { results <- d.account.check(d.ctx) }
		go check()
		<-asked
		ended, end := context.WithCancel(d.ctx)
		end()
		if err := d.account.check(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that stops waiting has the error %v", err)
		}
		for range 3 {
			go check()
		}
		close(answered)
		for range 4 {
			d.must(<-results)
		}
		if n := len(asked); n != 0 {
			t.Errorf("%d more requests", n)
		}
	})
}

// wrongAccount returns a process with the key of another account that has some of the same
// customers.
func (d *reporterFixture) wrongAccount(customers ...string) (*Reporter, *stripetest.Stripe) {
	other := stripetest.New(stripetest.Options{Now: d.clock, Account: "acct_wrong", Rand: rand.New(rand.NewPCG(9, 9))})
	other.AddMeter(d.meter())
	for _, c := range customers {
		other.AddCustomer(c, nil)
	}
	client, err := NewClient(ClientOptions{Key: "sk_test_wrong", Transport: other.Transport()})
	d.must(err)
	o := d.options
	o.Client = client
	return NewReporter(o), other
}

// A process with the key of another account sends and reads nothing, even after sending resumes.
func TestAnotherAccountStaysRefused(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.must(d.account.check(d.ctx))
		wrong, other := d.wrongAccount("cus_1")
		wrong.started.Store(true)
		if err := wrong.account.check(d.ctx); !errors.Is(err, ErrOtherAccount) || d.status().State.Stopped == nil {
			t.Errorf("the contact returned %v, and sending is not stopped", err)
		}
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		if err := wrong.account.check(d.ctx); !errors.Is(err, ErrOtherAccount) || d.status().State.Stopped != nil {
			t.Errorf("the second time: %v", err)
		}
		d.deliver()
		d.now = d.now.Add(25 * time.Hour)
		shell, _ := d.wrongAccount("cus_1")
		if _, err := shell.ReconcileAll(d.ctx, false); !errors.Is(err, ErrOtherAccount) || d.status().State.Stopped != nil {
			t.Errorf("reconciled with another account: %v", err)
		}
		if r := d.reports()[0]; r.State != models.ReportAccepted || len(other.Events()) != 0 {
			t.Errorf("the report is %s, and the other account has %+v", r.State, other.Events())
		}
	})
}

func TestLiveKeyAndStandIn(t *testing.T) {
	for base, key := range map[string]string{"http://127.0.0.1:1": "sk_live_x", "http://localhost:1": "rk_live_x"} {
		if _, err := NewClient(ClientOptions{Key: key, APIBase: base}); !errors.Is(err, ErrLiveKey) {
			t.Errorf("a live key goes to %s: %v", base, err)
		}
	}
	for _, base := range []string{"http://stripe.example.com", "127.0.0.1:12111", "http://10.0.0.1", "http://127.0.0.1:1/path",
		"ftp://localhost"} {
		if _, err := NewClient(ClientOptions{Key: "sk_test_x", APIBase: base}); err == nil {
			t.Errorf("%s is taken for a stand-in", base)
		}
	}
}

// If Stripe refuses a key, the log and `stripe reconcile` say what is stopped, also in a process
// that has a valid key.
func TestAStopIsExplained(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.must(d.account.check(d.ctx))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		client, err := NewClient(ClientOptions{Key: "sk_test_old", Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			return answer(http.StatusUnauthorized, problem("invalid_request_error", "", "Invalid API Key provided", ""))(r)
		})})
		d.must(err)
		o := d.options
		o.Client = client
		var log bytes.Buffer
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		for n := range 2 { // two processes, each of which asks more than once
			process := NewReporter(o)
			for range 3 {
				_ = process.account.check(d.ctx)
			}
			if times := strings.Count(log.String(), "all sending to Stripe is stopped"); times != n+1 {
				t.Errorf("%d processes logged it %d times", n+1, times)
			}
		}
		if _, err := NewReporter(o).ReconcileAll(d.ctx, false); err == nil ||
			!strings.Contains(err.Error(), "Invalid API Key") || strings.Contains(err.Error(), "%!") {
			t.Errorf("a refused key: %v", err)
		}
		s := d.reconcile(false).Status
		if !slices.Contains(s.Counts, StateCount{State: models.ReportSealed, Reports: 1, Units: 3}) {
			t.Errorf("the reports are %+v, want one that waits, of 3 units", s.Counts)
		}
		if why := text(s.State.Stopped); why != "Unauthorized: Invalid API Key provided" {
			t.Errorf("sending is stopped: %q", why)
		}
	})
}
