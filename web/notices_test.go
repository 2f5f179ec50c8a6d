package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
	"tollgate/models/notify"
	"tollgate/views"
)

// withChannels is a server that sends notices in Slack and by mail.
func withChannels(o *Options) {
	o.NoticeChannels = []models.NoticeChannel{models.ChannelSlack, models.ChannelMail}
}

func onBothWithChannels(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) { test(t, newFixture(t, address, withChannels)) })
}

// unsubscribeLink returns the unsubscribe link of a new mail to a person.
func (f *fixture) unsubscribeLink(email string) string {
	f.t.Helper()
	token := uuid.NewString()
	d := &models.NoticeDelivery{ID: uuid.New(), NoticeID: uuid.New(), Channel: models.ChannelMail, Recipient: f.user(email).ID,
		State: models.DeliverySent, UnsubscribeHash: models.HashUnsubscribe(token), CreatedAt: f.clock()}
	_, err := f.db.NewInsert().Model(d).Exec(context.Background())
	must(f.t, err)
	return notify.UnsubscribePath + "?token=" + token
}

// webhookEndpoint adds an endpoint and returns its ID.
func (f *fixture) webhookEndpoint() uuid.UUID {
	f.t.Helper()
	e, err := models.AddWebhookEndpoint(context.Background(), f.db, f.clock(), "otto@example.com", uuid.Must(uuid.NewV7()),
		"https://hooks.example.com/in")
	must(f.t, err)
	return e.ID
}

// noticeSettings returns a person's settings without the person.
func (f *fixture) noticeSettings(email string) models.NoticeSettings {
	f.t.Helper()
	s, err := models.NoticeSettingsOf(context.Background(), f.db, f.user(email).ID)
	must(f.t, err)
	s.UserID = uuid.Nil
	return s
}

func TestNoticeSettings(t *testing.T) {
	onBothWithChannels(t, func(t *testing.T, f *fixture) {
		cast := f.cast()
		bob := cast["bob"]()
		wants := func(what string, want models.NoticeSettings) {
			t.Helper()
			if got := f.noticeSettings("bob@example.com"); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		form := bob.get("/settings").form(views.PathNotices)
		if got := form.Encode(); got != "channel=slack&channel=mail&level=warning&level=critical&level=limit" {
			t.Errorf("the form has %s", got)
		}
		if ada := cast["ada"]().get("/settings").form(views.PathNotices); !strings.Contains(ada.Encode(), "level=digest") {
			t.Errorf("an admin's form has no daily summary: %s", ada.Encode())
		}
		some := url.Values{views.FieldChannel: {"mail"}, views.FieldLevel: {"critical", "limit"}}
		for _, p := range bob.atOnce(views.PathNotices, some) {
			if p.kind() != "See Other /settings" {
				t.Errorf("the form: %s", p.kind())
			}
		}
		want := models.NoticeSettings{Mail: true, Levels: models.NoticesCritical | models.NoticesLimit | models.NoticesDigest}
		wants("a form that is sent twice at once", want)
		bob.post(views.PathNotices, some)
		page := bob.get("/settings")
		if !strings.Contains(page.main(), "Notice settings saved") || page.form(views.PathNotices).Encode() != some.Encode() {
			t.Errorf("after the form: %s", page.main())
		}
		if strings.Contains(bob.get("/settings").main(), "Notice settings saved") {
			t.Error("the message is shown twice")
		}
		for name, sent := range map[string]struct {
			form  url.Values
			field string
		}{
			"no level":           {url.Values{views.FieldChannel: {"slack"}}, views.FieldIDLevel},
			"an unknown level":   {url.Values{views.FieldChannel: {"slack"}, views.FieldLevel: {"all"}}, views.FieldIDLevel},
			"an unknown channel": {url.Values{views.FieldChannel: {"pager"}, views.FieldLevel: {"limit"}}, views.FieldIDChannel},
		} {
			p := bob.post(views.PathNotices, sent.form)
			if p.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: %s", name, p.kind())
			}
			p.wantErrors(t, "Settings", sent.field)
			wants(name, want)
		}
		if p := bob.post(views.PathNotices, nil); p.kind() != "See Other /settings" {
			t.Errorf("no channels: %s", p.kind())
		}
		wants("no channels", models.NoticeSettings{Levels: models.NoticesDigest})
	})
}

func TestSettingsWithoutChannels(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	if p := b.get("/settings"); p.find("form", "action", views.PathNotices) != nil ||
		!strings.Contains(p.main(), "This server sends no direct messages and no email.") {
		t.Errorf("the page is %s", p.main())
	}
	before := f.noticeSettings("ada@example.com")
	b.post(views.PathNotices, url.Values{views.FieldChannel: {"mail"}, views.FieldLevel: {"limit"}})
	if after := f.noticeSettings("ada@example.com"); after != before {
		t.Errorf("the settings are %+v, were %+v", after, before)
	}
}

// Slack messages reach only people of the bot token's team, T1.
func TestSettingsNameAnotherSlackTeam(t *testing.T) {
	api := newSlackAPI(t)
	f := newFixture(t, modelstest.SQLite(t), withChannels, api.options)
	for email, team := range map[string]string{"ann@example.com": "T1", "ben@example.com": "T2"} {
		f.person(email, team, models.Member, false)
		const hint = "Your Slack account is in another workspace than this service's Slack app"
		if p := f.signedIn(email).get("/settings"); strings.Contains(p.main(), hint) != (team == "T2") {
			t.Errorf("%s: %s", team, p.main())
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	onBothWithChannels(t, func(t *testing.T, f *fixture) {
		cast := f.cast()
		must(t, models.SaveNoticeSettings(t.Context(), f.db, models.NoticeSettings{
			UserID: f.user("bob@example.com").ID, Slack: true, Mail: true, Levels: models.NoticesLimit,
		}))
		link := f.unsubscribeLink("bob@example.com")
		mail := func() bool { return f.noticeSettings("bob@example.com").Mail }
		signedOut := cast["signed out"]()
		p := signedOut.get(link)
		says(t, "the link", p.main(), []string{"You will get no email from Tollgate, including notices about payments and trials."}, nil)
		if p.status != 200 || p.find("form", "action", link) == nil || !mail() {
			t.Errorf("the link: %s, mail %t\n%s", p.kind(), mail(), p.main())
		}
		if p := signedOut.get(link + "0"); p.status != http.StatusNotFound {
			t.Errorf("another token: %s", p.kind())
		}
		// A mail program sends the form of RFC 8058 from its own site, and may send it again.
		oneClick := url.Values{"List-Unsubscribe": {"One-Click"}}
		for range 2 {
			if p := signedOut.post(link, oneClick, from("cross-site", "https://mail.example")); p.status != 200 ||
				!strings.Contains(p.main(), "Email is off") || len(p.header.Values("Set-Cookie")) > 0 {
				t.Errorf("one click: %s\n%s", p.kind(), p.main())
			}
			if got, want := f.noticeSettings("bob@example.com"), (models.NoticeSettings{Slack: true, Levels: models.NoticesLimit}); got != want {
				t.Errorf("the settings are %+v, want %+v", got, want)
			}
		}
		if p := signedOut.post("/unsubscribe?token=x", oneClick); p.status != http.StatusNotFound {
			t.Errorf("an unknown token: %s", p.kind())
		}
		// A person who never saved settings keeps the default of everything else.
		signedOut.post(f.unsubscribeLink("ada@example.com"), oneClick)
		if got, want := f.noticeSettings("ada@example.com"), (models.NoticeSettings{Slack: true, Levels: models.AllNotices}); got != want {
			t.Errorf("the settings are %+v, want %+v", got, want)
		}
	})
}

func TestOperatorSeesNotices(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		otto := f.cast()["otto"]()
		bob := f.user("bob@example.com").ID
		notice := &models.DueNotice{ID: uuid.New(), Subject: bob, SubjectKind: models.SubjectUser, Kind: models.NoticeFirstOverage,
			PeriodStart: f.clock(), State: models.NoticeDone, CreatedAt: f.clock(), DueAt: f.clock(), ExpiresAt: f.clock()}
		failed := &models.NoticeDelivery{ID: uuid.New(), NoticeID: notice.ID, Channel: models.ChannelMail, Recipient: bob,
			State: models.DeliveryFailed, Attempts: 2, CreatedAt: f.clock()}
		sent := &models.NoticeDelivery{ID: uuid.New(), NoticeID: notice.ID, Channel: models.ChannelSlack, Recipient: bob,
			State: models.DeliverySent, Attempts: 1, CreatedAt: f.clock()}
		tries := []models.NoticeAttempt{
			{DeliveryID: failed.ID, Number: 1, At: f.clock(), Outcome: models.AttemptNotSent, Detail: "451 later"},
			{DeliveryID: failed.ID, Number: 2, At: f.clock(), Outcome: models.AttemptFailed, Detail: "550 <b>no such user"},
		}
		for _, rows := range []any{notice, failed, sent, &tries} {
			_, err := f.db.NewInsert().Model(rows).Exec(t.Context())
			must(t, err)
		}
		p := otto.get("/ops")
		card := textOf(p.find("section", "aria-labelledby", "notices"))
		for _, want := range []string{"First overage", "Email", "bob@example.com", "Failed", "not sent (451 later)",
			"failed (550 <b>no such user)"} {
			if !strings.Contains(card, want) {
				t.Errorf("the card has no %q: %s", want, card)
			}
		}
		if strings.Contains(card, "Slack") {
			t.Errorf("the card lists a message that was sent: %s", card)
		}

		form := p.form(views.PathWebhooks)
		for _, address := range []string{"", "http://hooks.example.com", "https://ada@hooks.example.com", "https:///in", "https://a.example/#x"} {
			form.Set(views.FieldURL, address)
			p := otto.post(views.PathWebhooks, form)
			if p.status != http.StatusUnprocessableEntity {
				t.Errorf("%q: %s", address, p.kind())
			}
			p.wantErrors(t, "Operations", views.FieldIDWebhookURL)
		}
		form.Set(views.FieldURL, "https://hooks.example.com/in")
		added := otto.post(views.PathWebhooks, form)
		secret := textOf(added.find("div", "id", "new-webhook-secret"))
		if added.status != 200 || !strings.Contains(secret, "whsec_") {
			t.Errorf("an endpoint: %s\n%s", added.kind(), added.main())
		}
		again := otto.post(views.PathWebhooks, form)
		if again.status != http.StatusConflict || strings.Contains(again.body, "whsec_") {
			t.Errorf("the form again: %s", again.kind())
		}
		all, err := models.WebhookEndpoints(t.Context(), f.db)
		must(t, err)
		if len(all) != 1 || strings.Contains(otto.get("/ops").body, "whsec_") {
			t.Fatalf("%d endpoints, or the secret is shown again", len(all))
		}
		remove := url.Values{views.FieldID: {all[0].ID.String()}}
		if p := otto.get(views.PathWebhookRemove + "?" + remove.Encode()); p.status != 200 {
			t.Errorf("before the removal: %s", p.kind())
		}
		for range 2 {
			if p := otto.post(views.PathWebhookRemove, remove); p.kind() != "See Other /ops" {
				t.Errorf("the removal: %s", p.kind())
			}
		}
		want := []string{"otto@example.com webhook.add https://hooks.example.com", "otto@example.com webhook.remove"}
		if got := f.audited("webhook."); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the audit log has %q", got)
		}
	})
}

// TestSettingsExplainAMissingAddress: no sign-in verifies the address of someone whose address belongs
// to another account.
func TestSettingsExplainAMissingAddress(t *testing.T) {
	onBothWithChannels(t, func(t *testing.T, f *fixture) {
		bob := f.cast()["bob"]()
		const hint, unverified = "Your account has no email address of its own", "Your address is not verified yet"
		says(t, "with an address", bob.get("/settings").main(), []string{unverified}, []string{hint})
		_, err := f.db.ExecContext(context.Background(), "UPDATE users SET email = 'u1@t1.slack.invalid' WHERE email = 'bob@example.com'")
		must(t, err)
		says(t, "without an address", bob.get("/settings").main(), []string{hint}, []string{unverified})
	})
}

// TestHintsNameAPossibleSignIn checks that no hint tells people to sign in where the server has no
// credentials, or with Slack if another issuer signs people in.
func TestHintsNameAPossibleSignIn(t *testing.T) {
	const unverified, unlinked = "Your address is not verified yet", "Your account is not linked to Slack yet. "
	for _, test := range []struct {
		signIn       SignIn
		verify, link string
	}{
		{
			SignIn{Issuer: SlackIssuer},
			unverified + ", so you get no email. Ask the operator of this service to set up sign-in with Slack or another provider. " +
				"Your address is verified when you sign in there.",
			unlinked + "To link it, use the Slack app once.",
		},
		{
			SignIn{Issuer: SlackIssuer, ClientID: "1", ClientSecret: "2"},
			unverified + ". To verify it, sign out, then sign in with Slack.", unlinked + "To link it, sign out, then sign in with Slack.",
		},
		{
			SignIn{Issuer: "https://login.example.com", ClientID: "1", ClientSecret: "2"},
			unverified + ". To verify it, sign out, then sign in with login.example.com.", unlinked + "To link it, use the Slack app once.",
		},
	} {
		s := &Server{issuer: &issuer{SignIn: test.signIn}}
		if verify, link := s.verifyHint(), s.linkHint(false); verify != test.verify || link != test.link {
			t.Errorf("%+v: %q and %q, want %q and %q", test.signIn, verify, link, test.verify, test.link)
		}
		if link := s.linkHint(true); strings.Contains(link, "The Slack app links it") {
			t.Errorf("%+v: an admin reads %q", test.signIn, link)
		}
		f := newFixture(t, modelstest.SQLite(t), func(o *Options) { o.SignIn = test.signIn })
		if offered := strings.Contains(f.web.messages.unknownPerson().Text, "sign in with Slack"); offered != test.signIn.withSlack() {
			t.Errorf("%+v: the answer to an unknown person offers a sign-in with Slack: %v", test.signIn, offered)
		}
	}
}
