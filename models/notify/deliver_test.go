package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestFourWorkersDeliverEachNoticeOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.endpoint()
		ada := f.person("ada@example.com", "T1", "U1")
		var notices []uuid.UUID
		for i := range int64(10) {
			notices = append(notices, f.notice(ada, raised(i)))
		}
		var all sync.WaitGroup
		for range 4 {
			w := f.worker()
			all.Go(func() { f.drain(w) })
		}
		all.Wait()
		f.drain(f.worker()) // a worker may have ended while another one held the last row
		for name, got := range map[string][]string{"slack": f.slack.list(), "mail": f.smtp.list(), "webhook": f.webhooks.list()} {
			want(t, name, len(got), len(notices))
		}
		for _, n := range notices {
			want(t, "deliveries", f.deliveries(n), []string{"mail sent", "slack sent", "webhook sent"})
			want(t, "notice", f.state(n), models.NoticeDone)
			for _, d := range f.rows(n) {
				want(t, "attempts", f.attempts(d.ID), []string{"sent"})
			}
		}
		ids := f.webhooks.headers("Webhook-Id")
		slices.Sort(ids)
		want(t, "webhook IDs", len(slices.Compact(ids)), len(notices))
	})
}

// The process of an attempt ends after the message arrived and before the outcome is stored. Here, the
// answer does not come until another process took over.
func TestACrashBetweenSendAndCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.endpoint()
		ada := f.person("ada@example.com", "T1", "U1")
		notice := f.notice(ada)
		answer := make(chan struct{})
		wait := func() { <-answer }
		f.smtp.hold(wait)
		f.slack.answerWith(func(w http.ResponseWriter) {
			wait()
			_, _ = io.WriteString(w, `{"ok":true,"channel":"D1","ts":"1.1"}`)
		})
		var again atomic.Bool
		f.webhooks.answerWith(func(http.ResponseWriter) {
			if !again.Swap(true) {
				wait()
			}
		})

		crashed := f.worker()
		_, err := crashed.prepare(t.Context())
		must(t, err)
		var attempts sync.WaitGroup
		for _, channel := range []models.NoticeChannel{models.ChannelSlack, models.ChannelMail, models.ChannelWebhook} {
			attempts.Go(func() {
				if _, err := crashed.deliver(context.Background(), channel); err != nil {
					t.Error(err)
				}
			})
		}
		for _, server := range []*arrivals{f.slack.arrivals, f.smtp.arrivals, f.webhooks.arrivals} {
			<-server.arrived
		}
		second := f.worker()
		f.drain(second)
		want(t, "before the lease ends", f.deliveries(notice), []string{"mail sending", "slack sending", "webhook sending"})
		f.advance(leaseTime)
		f.drain(second)
		f.advance(time.Minute)
		f.drain(second)
		want(t, "after the lease", f.deliveries(notice), []string{"mail unknown", "slack unknown", "webhook sent"})
		close(answer)
		attempts.Wait()
		want(t, "after the late answers", f.deliveries(notice), []string{"mail unknown", "slack unknown", "webhook sent"})
		f.advance(24 * time.Hour)
		f.drain(second)
		want(t, "Slack messages", len(f.slack.list()), 1)
		want(t, "mails", len(f.smtp.list()), 1)
		bodies, ids := f.webhooks.list(), f.webhooks.headers("Webhook-Id")
		if len(ids) != 2 || ids[0] != ids[1] || bodies[0] != bodies[1] {
			t.Errorf("webhooks: %v, %v", ids, bodies)
		}
		want(t, "notice", f.state(notice), models.NoticeDone)
		for _, d := range f.rows(notice) {
			wanted := []string{"unknown"}
			if d.Channel == models.ChannelWebhook {
				wanted = []string{"unknown", "sent"}
			}
			want(t, "attempts", f.attempts(d.ID), wanted)
		}
	})
}

// outcomeTest is what a server does with an attempt, and what follows.
type outcomeTest struct {
	name   string
	server func(f *fixture)
	state  models.DeliveryState
	// again is the delay before the next attempt of a pending delivery.
	again time.Duration
}

func runOutcomes(t *testing.T, channel models.NoticeChannel, tests []outcomeTest) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.person("ada@example.com", "T1", "U1")
		w := f.worker(func(o *Options) {
			switch channel {
			case models.ChannelSlack:
				o.SMTP = nil
			default:
				o.SlackToken = ""
			}
		})
		for i, test := range tests {
			test.server(f)
			notice := f.notice(ada, raised(int64(i)))
			f.drain(w)
			d := f.rows(notice)[0]
			want(t, test.name, f.deliveries(notice), []string{string(channel) + " " + string(test.state)})
			if test.state != models.DeliverySent && d.LastError == "" {
				t.Errorf("%s: no reason is stored", test.name)
			}
			if test.state == models.DeliveryPending {
				want(t, test.name+", next attempt", d.NextAttemptAt.Sub(f.clock()), test.again)
				_, err := f.db.ExecContext(t.Context(), "UPDATE notice_deliveries SET state = 'skipped'")
				must(t, err)
			} else if strings.Contains(d.LastError, "tollgate.example.com/unsubscribe") {
				t.Errorf("%s: the reason has the unsubscribe token: %s", test.name, d.LastError)
			}
		}
	})
}

func TestOutcomesOfSlackMessages(t *testing.T) {
	status := func(code int, header ...string) func(f *fixture) {
		return func(f *fixture) {
			f.slack.answerWith(func(w http.ResponseWriter) {
				for i := 0; i+1 < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
			})
		}
	}
	refusal := func(code string) func(f *fixture) {
		return func(f *fixture) {
			f.slack.answerWith(func(w http.ResponseWriter) { _, _ = fmt.Fprintf(w, `{"ok":false,"error":%q}`, code) })
		}
	}
	text := func(text string) func(f *fixture) {
		return func(f *fixture) { f.slack.answerWith(func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }) }
	}
	runOutcomes(t, models.ChannelSlack, []outcomeTest{
		{"success", func(f *fixture) { f.slack.answerWith(nil) }, models.DeliverySent, 0},
		{"429", status(429, "Retry-After", "90"), models.DeliveryPending, 90 * time.Second},
		{"429 with a short delay", status(429, "Retry-After", "1"), models.DeliveryPending, minDelay},
		{"ratelimited", refusal("ratelimited"), models.DeliveryPending, minDelay},
		{"invalid_auth", refusal("invalid_auth"), models.DeliveryPending, minDelay},
		{"channel_not_found", refusal("channel_not_found"), models.DeliveryFailed, 0},
		{"user_not_found", refusal("user_not_found"), models.DeliveryFailed, 0},
		{"fatal_error", refusal("fatal_error"), models.DeliveryUnknown, 0},
		{"internal_error", refusal("internal_error"), models.DeliveryUnknown, 0},
		{"500", status(500), models.DeliveryUnknown, 0},
		{"503 with Retry-After", status(503, "Retry-After", "1"), models.DeliveryUnknown, 0},
		{"redirect", status(307, "Location", "/chat.postMessage"), models.DeliveryUnknown, 0},
		{"no JSON", text("<html>"), models.DeliveryUnknown, 0},
		{"half an answer", text(`{"ok":true,`), models.DeliveryUnknown, 0},
		{"closed connection", func(f *fixture) {
			f.slack.answerWith(func(http.ResponseWriter) { panic(http.ErrAbortHandler) })
		}, models.DeliveryUnknown, 0},
		{"connection refused", func(f *fixture) { f.slack.Stop() }, models.DeliveryPending, minDelay},
	})
}

func TestOutcomesOfMail(t *testing.T) {
	reply := func(command, text string) func(f *fixture) { return func(f *fixture) { f.smtp.reply(command, text) } }
	runOutcomes(t, models.ChannelMail, []outcomeTest{
		{"success", reply("", ""), models.DeliverySent, 0},
		{"busy", reply("CONNECT", "421 try later"), models.DeliveryPending, minDelay},
		{"sender refused for now", reply("MAIL", "451 greylisted"), models.DeliveryPending, minDelay},
		{"mailbox full", reply("RCPT", "452 full"), models.DeliveryPending, minDelay},
		{"unknown recipient", reply("RCPT", "550 no such user"), models.DeliveryFailed, 0},
		{"DATA refused for now", reply("DATA", "451 busy"), models.DeliveryPending, minDelay},
		{"closed before the mail", reply("DATA", ""), models.DeliveryPending, minDelay},
		{"mail refused for now", reply(".", "451 busy"), models.DeliveryPending, minDelay},
		{"mail refused", reply(".", "554 spam"), models.DeliveryFailed, 0},
		{"no reply to the mail", reply(".", ""), models.DeliveryUnknown, 0},
		{"closed after the mail", reply("RSET", ""), models.DeliverySent, 0},
		{"error after the mail", reply("QUIT", "421 bye"), models.DeliverySent, 0},
		{"connection refused", func(f *fixture) { _ = f.smtp.listener.Close() }, models.DeliveryPending, minDelay},
	})
}

func TestDelaysDoubleUntilTheNoticeExpires(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.person("ada@example.com", "T1", "U1")
		f.smtp.reply("RCPT", "451 later")
		w := f.worker(func(o *Options) { o.SlackToken = "" })
		notice := f.notice(ada, func(n *models.DueNotice) { n.ExpiresAt = noon.Add(3 * time.Hour) })
		var delays []time.Duration
		for f.drain(w); f.rows(notice)[0].State == models.DeliveryPending; f.drain(w) {
			delay := f.rows(notice)[0].NextAttemptAt.Sub(f.clock())
			delays = append(delays, delay)
			f.advance(delay)
		}
		want(t, "delays", delays, "[30s 1m0s 2m0s 4m0s 8m0s 16m0s 32m0s 1h0m0s 1h0m0s]")
		want(t, "in the end", f.deliveries(notice), "[mail skipped]")
		want(t, "notice", f.state(notice), models.NoticeDone)
	})
}

func TestWebhooks(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		endpoint := f.endpoint()
		ada := f.person("ada@example.com", "T1", "U1")
		w := f.worker(func(o *Options) { o.SlackToken, o.SMTP = "", nil })
		f.webhooks.answerWith(func(w http.ResponseWriter) { w.WriteHeader(500) })
		notice := f.notice(ada)
		f.drain(w)
		// The person's address changes. The payload does not.
		_, err := models.LinkPeople(t.Context(), f.db, noon, []models.Link{
			{Email: "new@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}},
		})
		must(t, err)
		for f.rows(notice)[0].State == models.DeliveryPending {
			f.advance(f.rows(notice)[0].NextAttemptAt.Sub(f.clock()))
			f.drain(w)
		}
		want(t, "in the end", f.deliveries(notice), "[webhook failed]")
		if took := f.clock().Sub(noon); took < 70*time.Hour || took > 72*time.Hour {
			t.Errorf("the attempts took %s, want almost three days", took)
		}
		bodies, ids := f.webhooks.list(), f.webhooks.headers("Webhook-Id")
		times, signatures := f.webhooks.headers("Webhook-Timestamp"), f.webhooks.headers("Webhook-Signature")
		want(t, "attempts", len(bodies), 10)
		key, err := endpoint.SigningKey()
		must(t, err)
		for i := range bodies {
			if ids[i] != f.rows(notice)[0].ID.String() || bodies[i] != bodies[0] || signatures[i] != sign(key, ids[i], times[i], bodies[i]) {
				t.Errorf("attempt %d: %s %s %s", i+1, ids[i], signatures[i], bodies[i])
			}
		}
		if times[0] == times[9] {
			t.Error("all attempts have the same time")
		}
		var body map[string]any
		must(t, json.Unmarshal([]byte(bodies[0]), &body))
		data, _ := body["data"].(map[string]any)
		want(t, "type", body["type"], "notice.included")
		want(t, "user", data["user"], map[string]any{"id": ada, "email": "ada@example.com"})
		want(t, "text", data["text"], "You've used 60 of 75 suggestions (80%). They reset on Dec 1, 2026, 00:00 UTC.")

		f.webhooks.answerWith(func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://hooks.example.com/other")
			w.WriteHeader(308)
		})
		redirected := f.notice(ada, raised(1))
		f.drain(w)
		want(t, "redirect", f.deliveries(redirected), "[webhook pending]")
		want(t, "requests after a redirect", len(f.webhooks.list()), 11)

		f.webhooks.answerWith(func(w http.ResponseWriter) { w.WriteHeader(410) })
		gone, before := f.notice(ada, raised(2)), len(f.webhooks.list())
		f.drain(w)
		want(t, "gone", f.deliveries(gone), "[webhook failed]")
		f.advance(time.Hour)
		f.drain(w)
		want(t, "the redirected one", f.deliveries(redirected), "[webhook skipped]")
		after := f.notice(ada, raised(3))
		f.drain(w)
		want(t, "after 410", f.state(after), models.NoticeSkipped)
		want(t, "requests after 410", len(f.webhooks.list())-before, 1)
		all, err := models.WebhookEndpoints(t.Context(), f.db)
		must(t, err)
		if all[0].DisabledAt == nil || !strings.Contains(all[0].Reason, "410") {
			t.Errorf("the endpoint is %+v", all[0])
		}
	})
}

// Source: the example in https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries
func TestSignature(t *testing.T) {
	e := models.WebhookEndpoint{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	key, err := e.SigningKey()
	must(t, err)
	want(t, "signature", sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", `{"test": 2432232314}`),
		"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
}

func TestWhoGetsANotice(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada, other := f.person("ada@example.com", "T1", "U1"), f.person("bob@example.com", "T2", "U2")
		unverified, err := models.EnsureUser(t.Context(), f.db, "eve@example.com", noon)
		must(t, err)
		f.setRole("ada@example.com", models.Admin)
		acme := f.organizationOf(ada)
		w := f.worker()
		f.drain(w)
		save := func(s models.NoticeSettings) {
			t.Helper()
			s.UserID = ada
			must(t, models.SaveNoticeSettings(t.Context(), f.db, s))
		}
		n := int64(0)
		check := func(what string, subject uuid.UUID, wanted string, changes ...func(*models.DueNotice)) {
			t.Helper()
			n++
			notice := f.notice(subject, append(changes, raised(n))...)
			f.drain(w)
			want(t, what, f.deliveries(notice), wanted)
			if state := f.state(notice); wanted == "[]" && state != models.NoticeSkipped || wanted != "[]" && state != models.NoticeDone {
				t.Errorf("%s: the notice is %s", what, state)
			}
		}
		check("the default", ada, "[mail sent slack sent]")
		check("another Slack team", other, "[mail sent]")
		check("an address that no sign-in verified", unverified, "[]")
		check("the admins of an organization", acme, "[mail sent slack sent]", forOrganization, withKind(models.NoticeOrganizationSpendLimit, 0))
		check("an organization without admins", f.organizationOf(other), "[]", forOrganization,
			withKind(models.NoticeOrganizationSpendLimit, 0))
		check("an expired notice", ada, "[]", func(d *models.DueNotice) { d.ExpiresAt = noon })
		save(models.NoticeSettings{Slack: true, Levels: models.NoticesCritical})
		check("a level that was not selected", ada, "[]")
		check("a selected level", ada, "[slack sent]", withKind(models.NoticeIncluded, 95))
		check("a limit", ada, "[]", withKind(models.NoticeSpendLimit, 0))
		save(models.NoticeSettings{Mail: true, Levels: models.NoticesLimit})
		check("a limit by mail", ada, "[mail sent]", withKind(models.NoticeSpendLimit, 0))
		check("all included units", ada, "[mail sent]", withKind(models.NoticeIncluded, 100))
	})
}

// Between the preparation and the attempt, something changes.
func TestClaimsCheckAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.person("ada@example.com", "T1", "U1")
		f.setRole("ada@example.com", models.Admin)
		acme := f.organizationOf(ada)
		endpoint := f.endpoint()
		trialEnd := noon.Add(72 * time.Hour)
		trial := &models.Subscription{ID: uuid.New(), UserID: &ada, PlanID: "pro", Status: models.StatusTrialing, TrialEnd: &trialEnd,
			CreatedAt: noon, UpdatedAt: noon}
		_, err := f.db.NewInsert().Model(trial).Exec(t.Context())
		must(t, err)
		w := f.worker()
		ending := func(n *models.DueNotice) { n.Kind, n.Facts.TrialEnd = models.NoticeTrialEnding, trialEnd }
		still := f.notice(ada, ending)
		f.drain(w)
		want(t, "a trial", f.deliveries(still), "[mail sent slack sent webhook sent]")

		byRole := f.notice(acme, forOrganization, withKind(models.NoticeOrganizationSpendLimit, 0))
		bySettings, byTrial := f.notice(ada, raised(1)), f.notice(ada, ending, raised(1))
		_, err = w.prepare(t.Context())
		must(t, err)
		f.setRole("ada@example.com", models.Member)
		must(t, models.StopMail(t.Context(), f.db, ada))
		_, err = f.db.ExecContext(t.Context(), "UPDATE subscriptions SET status = 'active'")
		must(t, err)
		_, err = models.RemoveWebhookEndpoint(t.Context(), f.db, noon, "ops@example.com", endpoint.ID)
		must(t, err)
		f.drain(w)
		want(t, "not an admin anymore", f.deliveries(byRole), "[mail skipped slack skipped webhook skipped]")
		want(t, "mail turned off", f.deliveries(bySettings), "[mail skipped slack sent webhook skipped]")
		want(t, "the trial ended", f.deliveries(byTrial), "[mail skipped slack skipped webhook skipped]")
		want(t, "mails", len(f.smtp.list()), 1)
	})
}

func TestAnIdleWorkerOnlyReads(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.endpoint()
		f.notice(f.person("ada@example.com", "T1", "U1"))
		f.notice(f.person("bob@example.com", "T1", "U2"), func(n *models.DueNotice) { n.DueAt = noon.Add(time.Hour) })
		w := f.worker()
		f.drain(w)
		f.db.DB = f.db.WithQueryHook(onlyReads{t})
		f.drain(w)
	})
}

func TestStartTwiceAndStop(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		w := f.worker()
		w.Stop()
		w.Start(t.Context())
		w.Start(t.Context())
		f.notice(f.person("ada@example.com", "T1", "U1"))
		<-f.smtp.arrived
		<-f.slack.arrived
		w.Stop()
		w.Stop()
		w.Start(t.Context())
		f.notice(f.person("bob@example.com", "T1", "U2"))
		<-f.smtp.arrived
		<-f.slack.arrived
		w.Stop()
		want(t, "mails", len(f.smtp.list()), 2)
	})
}
