package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/web/client"
)

var ada = client.Person{Email: "ada@example.com"}

// open returns a client with a spool. Its errors fail the test.
func open(t *testing.T, url, key string, o client.Options) *client.Client {
	t.Helper()
	o.URL, o.APIKey = url, key
	if o.Outage == (client.Outage{}) {
		o.Outage = client.Allow(3)
	}
	if o.Spool == "" {
		o.Spool = filepath.Join(t.TempDir(), "spool")
	}
	if o.OnError == nil {
		o.OnError = func(err error) { t.Error(err) }
	}
	c, err := client.Open(o)
	must(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

// recorded waits until the spool is empty.
func recorded(t *testing.T, c *client.Client) {
	t.Helper()
	for {
		left, _ := c.Flush(t.Context()) // an entry that is left has an error
		if left == 0 {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func hold(quantity int64, key string) client.HoldRequest {
	return client.HoldRequest{Person: ada, Quantity: quantity, IdempotencyKey: key}
}

func consume(quantity int64, key string) client.ConsumeRequest {
	return client.ConsumeRequest{CheckRequest: client.CheckRequest{Person: ada, Quantity: quantity}, IdempotencyKey: key}
}

func code(t *testing.T, err error, want string) {
	t.Helper()
	if got := client.CodeOf(err); got != want {
		t.Errorf("the error is %v, not %s", err, want)
	}
}

// ok checks a decision that must be allowed.
func ok(t *testing.T, d *client.Decision, err error, answered, spooled bool) *client.Decision {
	t.Helper()
	must(t, err)
	if !d.Allowed || d.Answered != answered || d.Spooled != spooled {
		t.Fatalf("allowed %t, answered %t, spooled %t; cause: %v", d.Allowed, d.Answered, d.Spooled, d.Cause)
	}
	return d
}

func uses(n int64) func(context.Context, client.Hold) (int64, string, error) {
	return func(context.Context, client.Hold) (int64, string, error) { return n, "text", nil }
}

func TestCallsReturnDecisionsAndErrors(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	c := open(t, s.url, s.key, client.Options{})
	d, err := c.Consume(ctx, consume(2, "1"))
	if ok(t, d, err, true, false); d.Used != 2 || d.Remaining != 3 || d.Slack != nil {
		t.Errorf("%+v", d)
	}
	d, err = c.Consume(ctx, consume(2, "1"))
	if ok(t, d, err, true, false); !d.Replayed {
		t.Error("not replayed")
	}
	_, err = c.Consume(ctx, consume(1, "1"))
	code(t, err, "idempotency_key_reused")

	text, d, err := client.WithHold(ctx, c, hold(2, "2"), uses(1))
	if ok(t, d, err, true, false); d.Used != 3 || d.Held != 0 || text != "text" {
		t.Errorf("%q, %+v", text, d)
	}
	if _, _, err = client.WithHold(ctx, c, hold(2, "3"), func(context.Context, client.Hold) (int64, int, error) {
		return 0, 0, errors.New("no idea")
	}); err == nil || err.Error() != "no idea" {
		t.Error(err)
	}
	_, d, err = client.WithHold(ctx, c, hold(2, "4"), uses(0))
	if ok(t, d, err, true, false); d.Held != 0 {
		t.Errorf("%d units are on hold", d.Held)
	}
	if _, _, err = client.WithHold(ctx, c, hold(2, "5"), uses(3)); err == nil {
		t.Error("3 of 2 units were settled")
	}
	_, err = c.Hold(ctx, hold(2, "4"))
	code(t, err, "hold_released")
	_, d, err = client.WithHold(ctx, c, hold(3, "6"), uses(3))
	must(t, err)
	if d.Allowed || d.Slack == nil || d.Reason != "included_exhausted" {
		t.Errorf("%+v", d)
	}
	_, err = c.Check(ctx, client.CheckRequest{Person: client.Person{SlackTeamID: "T1", SlackUserID: "U1"}})
	code(t, err, "unknown_user")
	_, err = open(t, s.url, "tg_live_wrong", client.Options{}).Check(ctx, client.CheckRequest{Person: ada})
	code(t, err, "unauthorized")
	s.used(t, 3)
}

func TestCallsAreRetriedWithTheSameKey(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := newProxy(t, s)
	c := open(t, p.URL, s.key, client.Options{})
	for i, mode := range []int{lose, 503, 429} {
		before := int(p.requests.Load())
		p.set(func(n int) int {
			if n == before+1 {
				return mode
			}
			return forward
		})
		d, err := c.Consume(t.Context(), consume(1, strconv.Itoa(i)))
		if ok(t, d, err, true, false); d.Replayed != (mode == lose) || int(p.requests.Load()) != before+2 {
			t.Errorf("mode %d: replayed %t, %d requests", mode, d.Replayed, int(p.requests.Load())-before)
		}
	}
	s.used(t, 3)
}

func TestAnOutageIsRecordedLater(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	c := open(t, s.url, s.key, client.Options{})
	s.kill(t)
	d, err := c.Consume(ctx, consume(1, "1"))
	ok(t, d, err, false, true)
	d, err = c.Consume(ctx, consume(1, "1"))
	if ok(t, d, err, false, true); !d.Replayed {
		t.Error("not replayed")
	}
	_, err = c.Consume(ctx, consume(2, "1"))
	code(t, err, "idempotency_key_reused")
	_, d, err = client.WithHold(ctx, c, hold(2, "2"), func(context.Context, client.Hold) (int64, int, error) {
		d, err := c.Check(ctx, client.CheckRequest{Person: ada})
		if err != nil || d.Allowed { // 1 is spooled, 2 are on hold
			t.Errorf("%+v, %v", d, err)
		}
		return 1, 0, nil
	})
	ok(t, d, err, false, true)
	d, err = c.Hold(ctx, hold(1, "3"))
	ok(t, d, err, false, false)
	_, err = c.Release(ctx, *d.Hold)
	must(t, err)
	d, err = c.Consume(ctx, consume(1, "4"))
	ok(t, d, err, false, true)
	d, err = c.Consume(ctx, consume(1, "5"))
	must(t, err)
	if d.Allowed || d.Reason != client.CodeUnavailable || !json.Valid(d.Slack) {
		t.Errorf("%+v", d)
	}

	s.start(t)
	recorded(t, c)
	s.used(t, 3)
	// The same work again counts nothing.
	_, d, err = client.WithHold(ctx, c, hold(2, "2"), uses(1))
	ok(t, d, err, false, true)
	d, err = c.Consume(ctx, consume(1, "1"))
	if ok(t, d, err, true, false); !d.Replayed {
		t.Error("not replayed")
	}
	recorded(t, c)
	s.used(t, 3)
	s.command(t, "verify")
}

func TestRefuseStillRepeatsSettlements(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	c := open(t, s.url, s.key, client.Options{Outage: client.Refuse})
	bare, err := client.Open(client.Options{URL: s.url, APIKey: s.key, Outage: client.Refuse})
	must(t, err)
	held, err := c.Hold(ctx, hold(2, "1"))
	ok(t, held, err, true, false)
	s.kill(t)
	d, err := c.Consume(ctx, consume(1, "2"))
	must(t, err)
	if d.Allowed {
		t.Error("allowed")
	}
	_, err = bare.Settle(ctx, *held.Hold, 2, "")
	code(t, err, client.CodeUnavailable)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	d, err = c.Settle(ended, *held.Hold, 2, "")
	ok(t, d, err, false, true)
	s.start(t)
	recorded(t, c)
	s.used(t, 2)
}

// A settlement that is repeated later takes no message away from the next answer.
func TestRepeatedSettlementsAreSilent(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	c := open(t, s.url, s.key, client.Options{})
	r := hold(4, "1")
	r.Notify = client.Never
	held, err := c.Hold(ctx, r)
	ok(t, held, err, true, false)
	s.kill(t)
	d, err := c.Settle(ctx, *held.Hold, 4, "")
	ok(t, d, err, false, true)
	s.start(t)
	recorded(t, c)
	d, err = c.Check(ctx, client.CheckRequest{Person: ada, Notify: client.Always})
	if ok(t, d, err, true, false); d.Slack == nil || d.UsageURL != s.url+"/usage" {
		t.Errorf("slack: %s, usage_url: %s", d.Slack, d.UsageURL)
	}
	_, d, err = client.WithHold(ctx, c, hold(1, "2"), uses(0))
	if ok(t, d, err, true, false); d.Slack == nil {
		t.Error("the first message of the level is missing")
	}
}

func TestAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	p := newProxy(t, s)
	c := open(t, p.URL, s.key, client.Options{})
	// A settlement whose outcome is unknown is repeated as a settlement.
	held, err := c.Hold(ctx, hold(2, "1"))
	ok(t, held, err, true, false)
	p.set(func(int) int { return lose })
	d, err := c.Settle(ctx, *held.Hold, 2, "")
	ok(t, d, err, false, true)
	d, err = c.Hold(ctx, hold(2, "1"))
	if ok(t, d, err, false, true); d.Hold.ID != held.Hold.ID {
		t.Error("the hold lost its ID")
	}
	s.used(t, 2)
	p.set(func(int) int { return forward })
	recorded(t, c)
	s.used(t, 2)
	if n := p.events.Load(); n != 0 {
		t.Errorf("%d calls to /v1/events", n)
	}

	// A hold that was not confirmed is recorded under its key, once.
	p.set(func(int) int { return lose })
	held, err = c.Hold(ctx, hold(2, "2"))
	ok(t, held, err, false, false)
	p.set(func(int) int { return forward })
	for range 2 {
		before := p.requests.Load()
		d, err = c.Hold(ctx, hold(2, "2")) // Tollgate would confirm it now
		must(t, err)
		if d.Hold.ID != "" || p.requests.Load() != before {
			t.Error("Tollgate was asked for the hold again")
		}
		d, err = c.Settle(ctx, *held.Hold, 2, "")
		ok(t, d, err, false, true)
		recorded(t, c)
	}
	_, err = c.Settle(ctx, *held.Hold, 1, "")
	code(t, err, "hold_settled")
	s.used(t, 4)
	if keys := s.keys(t); !slices.Equal(keys, []string{"2"}) {
		t.Errorf("keys: %q", keys)
	}
}

func TestAnExpiredHoldIsRecorded(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	c := open(t, s.url, s.key, client.Options{})
	r := hold(2, "1")
	r.TTLSeconds = 1
	late, err := c.Hold(ctx, r)
	ok(t, late, err, true, false)
	r.IdempotencyKey = "2"
	held, err := c.Hold(ctx, r)
	ok(t, held, err, true, false)
	s.kill(t)
	d, err := c.Settle(ctx, *held.Hold, 2, "")
	ok(t, d, err, false, true)
	select {
	case <-time.After(time.Until(held.Hold.ExpiresAt) + 50*time.Millisecond):
	case <-ctx.Done():
	}
	s.start(t)
	recorded(t, c)
	d, err = c.Settle(ctx, *late.Hold, 1, "")
	ok(t, d, err, false, true)
	d, err = c.Settle(ctx, *held.Hold, 2, "")
	ok(t, d, err, false, true)
	recorded(t, c)
	s.used(t, 3)
	if keys := s.keys(t); !slices.Equal(keys, []string{"1", "2"}) {
		t.Errorf("keys: %q", keys)
	}
}

// runChild uses units one after another and prints the key of each one that it got.
func runChild(job string) error {
	var o client.Options
	if err := json.Unmarshal([]byte(job), &o); err != nil {
		return err
	}
	o.Outage, o.Timeout, o.Attempts = client.Allow(10_000), 200*time.Millisecond, 2
	c, err := client.Open(o)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := 0; ; i++ {
		key := fmt.Sprintf("%d-%d", os.Getpid(), i)
		var d *client.Decision
		if i%2 == 1 {
			_, d, err = client.WithHold(ctx, c, hold(1, key), uses(1))
		} else {
			d, err = c.Consume(ctx, consume(1, key))
		}
		if err != nil {
			return err
		}
		if d.Allowed {
			_, _ = fmt.Println(key)
		}
	}
}

// An app and a server that are killed lose nothing and count nothing twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.command(t, "subscribe", "--email", ada.Email, "--plan", "pro")
	s.command(t, "grant", ada.Email, "--quantity", "100000", "--reason", "test")
	spool := filepath.Join(t.TempDir(), "spool")
	job, err := json.Marshal(map[string]any{"URL": s.url, "APIKey": s.key, "Spool": spool})
	must(t, err)
	var got []string
	run := func(during func(*testing.T)) {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env, child.Stderr = append(os.Environ(), childVariable+"="+string(job)), os.Stderr
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		n := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			got = append(got, lines.Text())
			switch n++; n {
			case 10:
				during(t)
			case 20:
				must(t, child.Process.Kill())
			}
		}
		_ = child.Wait() // it was killed
		if n < 20 {
			t.Fatalf("the app ended after %d units", n)
		}
	}
	run(s.kill) // the server dies, then the app
	cut, err := os.OpenFile(spool, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = cut.WriteString(`{"seq":100000,"kind":"ev`)
	must(t, errors.Join(err, cut.Close()))
	run(s.start) // the app starts during the outage
	run(s.kill)
	s.start(t)

	c := open(t, s.url, s.key, client.Options{Spool: spool})
	recorded(t, c)
	var d client.Decision
	s.get(t, "/v1/usage/"+ada.Email, &d)
	t.Logf("%d units were given, and %d are recorded", len(got), d.Used)
	// Units that a killed app was about to give are recorded, but were not given: at most one per app.
	if d.Used < int64(len(got)) || d.Used > int64(len(got)+3) {
		t.Errorf("%d units are recorded, and %d were given", d.Used, len(got))
	}
	keys := s.keys(t)
	for _, key := range got {
		_, i, _ := strings.Cut(key, "-")
		if _, found := slices.BinarySearch(keys, key); !found && (i[len(i)-1]-'0')%2 == 0 {
			t.Errorf("%s is lost", key)
		}
	}
}

func TestASpoolBelongsToOneClient(t *testing.T) {
	t.Parallel()
	o := client.Options{URL: "http://127.0.0.1:1", Outage: client.Allow(1), Spool: filepath.Join(t.TempDir(), "spool")}
	c, err := client.Open(o)
	must(t, err)
	if _, err := client.Open(o); err == nil || !strings.Contains(err.Error(), "another client uses it") {
		t.Error(err)
	}
	must(t, c.Close())
	c, err = client.Open(o)
	must(t, err)
	must(t, c.Close())
	must(t, os.WriteFile(o.Spool, []byte("no JSON\n"), 0o600))
	if _, err := client.Open(o); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Error(err)
	}
}

func TestUsageThatTollgateRefusesIsMoved(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), newServer(t)
	spool := filepath.Join(t.TempDir(), "spool")
	failures := make(chan error, 10)
	c := open(t, s.url, s.key, client.Options{Spool: spool, OnError: func(err error) { failures <- err }})
	s.kill(t)
	unknown := consume(1, "1")
	unknown.Person = client.Person{SlackTeamID: "T1", SlackUserID: "U1"}
	d, err := c.Consume(ctx, unknown)
	ok(t, d, err, false, true)
	d, err = c.Consume(ctx, consume(1, "2"))
	ok(t, d, err, false, true)
	s.start(t)
	recorded(t, c)
	s.used(t, 1)
	rejected, err := os.ReadFile(spool + ".rejected")
	must(t, err)
	if len(failures) != 1 || !strings.Contains(string(rejected), `"slack_user_id":"U1"`) {
		t.Errorf("%d errors, %s", len(failures), rejected)
	}
}
