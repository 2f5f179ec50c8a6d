package notify

import (
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestTexts(t *testing.T) {
	plans, err := models.LoadCatalogue("")
	must(t, err)
	w := New(Options{Catalogue: plans, BaseURL: "https://t.example"})
	month, acme := models.CalendarMonth(noon), uuid.MustParse("01a00000-0000-7000-8000-000000000001")
	limit := func(n int64) *int64 { return &n }
	of := func(in models.Situation) subject {
		in.UserID = acme
		return subject{situation: &in}
	}
	admins := []models.OrganizationAdmin{{Name: "Ada Admin"}, {Name: "Bob Boss"}}
	alone := of(models.Situation{})
	member := of(models.Situation{OrganizationID: &acme, Organization: "Acme", PaidByOrganization: true, Admins: admins})
	orphan := of(models.Situation{OrganizationID: &acme, PaidByOrganization: true})
	boss := of(models.Situation{OrganizationID: &acme, PaidByOrganization: true, Admins: admins, Admin: true})
	for _, test := range []struct {
		kind      models.NoticeKind
		threshold int64
		facts     models.NoticeFacts
		about     subject
		want      string
	}{
		{models.NoticeIncluded, 80, models.NoticeFacts{Plan: "free", Used: 4, Included: 5}, alone,
			"Running low. You've used 4 of 5 suggestions (80%). They reset on Dec 1, 2026, 00:00 UTC. Upgrade your plan: https://t.example/plans"},
		{models.NoticeIncluded, 95, models.NoticeFacts{Plan: "team", Used: 48, Included: 50}, member,
			"Almost used up. You've used 48 of 50 suggestions (96%). They reset on Dec 1, 2026, 00:00 UTC. " +
				"Ask Ada Admin or Bob Boss to upgrade the plan."},
		{models.NoticeIncluded, 95, models.NoticeFacts{Plan: "team", Used: 48, Included: 50}, orphan,
			"Almost used up. You've used 48 of 50 suggestions (96%). They reset on Dec 1, 2026, 00:00 UTC. " +
				"Your organization has no admin. Ask the operator of this service to add one."},
		{models.NoticeIncluded, 100, models.NoticeFacts{Plan: "pro", Used: 75, Included: 75, OverageRateCents: 30}, alone,
			"Extra suggestions are billed. You've used 75 of 75 suggestions (100%). Each extra suggestion costs $0.30. " +
				"Your included suggestions reset on Dec 1, 2026, 00:00 UTC. Compare plans: https://t.example/plans"},
		{
			models.NoticeIncluded, 100,
			models.NoticeFacts{Plan: "pro", Used: 75, Included: 75, OverageRateCents: 30, NextRefusal: models.PaymentPastDue}, alone,
			"Payment failed. You've used 75 of 75 suggestions (100%). The last payment failed, so extra suggestions are paused until it " +
				"succeeds. Your included suggestions reset on Dec 1, 2026, 00:00 UTC. Update the payment method: https://t.example/usage",
		},
		{
			models.NoticeIncluded, 100,
			models.NoticeFacts{Plan: "team", Used: 50, Included: 50, OverageRateCents: 25, NextRefusal: models.OrganizationSpendLimitReached},
			member,
			"Organization limit reached. You've used 50 of 50 suggestions (100%). Your organization has reached its spend limit, so extra " +
				"suggestions are paused. Your included suggestions reset on Dec 1, 2026, 00:00 UTC. " +
				"Ask Ada Admin or Bob Boss to raise the organization's spend limit.",
		},
		{models.NoticeFirstOverage, 0,
			models.NoticeFacts{Plan: "pro", Used: 76, Overage: 1, OverageCents: 30, Included: 75, OverageRateCents: 30},
			alone,
			"Extra suggestions are billed. You've used all 75 included suggestions and 1 extra ($0.30 so far). " +
				"Each extra suggestion costs $0.30. Your included suggestions reset on Dec 1, 2026, 00:00 UTC. " +
				"Compare plans: https://t.example/plans"},
		{models.NoticeSpendLimit, 0, models.NoticeFacts{Plan: "pro", Used: 78, Overage: 3, OverageCents: 90, Included: 75, OverageRateCents: 30,
			SpendLimitCents: limit(100)}, alone,
			"Spend limit reached. You've used all 75 included suggestions and 3 extra ($0.90 so far). " +
				"Your spend limit of $1.00 does not allow another extra suggestion. " +
				"Your included suggestions reset on Dec 1, 2026, 00:00 UTC. Raise your spend limit: https://t.example/usage#spend-limit"},
		{models.NoticeMemberLimit, 0, models.NoticeFacts{Plan: "team", Used: 10, Included: 50, MemberLimit: limit(10)}, member,
			"Member limit reached. You've used 10 of 50 suggestions (20%). You've reached your member limit of 10 suggestions. " +
				"Your included suggestions reset on Dec 1, 2026, 00:00 UTC. Ask Ada Admin or Bob Boss to raise your member limit."},
		{models.NoticeMemberLimit, 0, models.NoticeFacts{Plan: "team", Used: 45, Included: 50, MemberLimit: limit(45)}, boss,
			"Member limit reached. You've used 45 of 50 suggestions (90%). You've reached your member limit of 45 suggestions. " +
				"Your included suggestions reset on Dec 1, 2026, 00:00 UTC. " +
				"Raise your member limit: https://t.example/org/members/01a00000-0000-7000-8000-000000000001#limit"},
		{models.NoticeOrganizationSpendLimit, 0, models.NoticeFacts{OrganizationSpendCents: 49990, OrganizationLimitCents: limit(50000)},
			subject{name: "Acme"},
			"Organization limit reached. Extra suggestions are paused for everyone in Acme: $499.90 of the spend limit of $500.00 " +
				"is used, and one more extra suggestion would exceed it. " +
				"Included suggestions reset on Dec 1, 2026, 00:00 UTC. Raise the organization's spend limit: https://t.example/org#spend-limit"},
		{models.NoticeTrialEnding, 0, models.NoticeFacts{Plan: "pro", TrialEnd: noon.Add(72 * time.Hour)}, alone,
			"Your trial ends soon. Your trial of Pro ends on Nov 26, 2026, 12:00 UTC. The subscription is billed from then on, " +
				"unless you cancel it. To cancel, open the page with the plans and select “Invoices and payment”. " +
				"Open the page with the plans: https://t.example/plans"},
		{models.NoticeTrialEnding, 0, models.NoticeFacts{Plan: "pro", TrialEnd: noon.Add(72 * time.Hour)}, member,
			"Your trial ends soon. Your trial of Pro ends on Nov 26, 2026, 12:00 UTC. Your plan comes from Acme, so Pro has no effect, but " +
				"it is billed from then on, unless you cancel it. You can cancel it on the page with the plans. " +
				"Open the page with the plans: https://t.example/plans"},
		{models.NoticePaymentPastDue, 0, models.NoticeFacts{Plan: "pro"}, alone,
			"Payment failed. The last payment failed. The included suggestions that are left still work. If no payment succeeds, you move " +
				"to the free plan. " +
				"Update the payment method: https://t.example/usage"},
		{models.NoticePaymentPastDue, 0, models.NoticeFacts{Plan: "pro", OverageRateCents: 30}, alone,
			"Payment failed. The last payment failed, so extra suggestions are paused until it succeeds. " +
				"The included suggestions that are left still work. If no payment succeeds, you move to the free plan. " +
				"Update the payment method: https://t.example/usage"},
		{models.NoticePaymentPastDue, 0, models.NoticeFacts{Plan: "pro", OverageRateCents: 30}, member,
			"Payment failed. The last payment for your own subscription to Pro failed. Your plan comes from Acme, so Pro has no effect. " +
				"You can cancel it on the page with the plans. " +
				"Open the page with the plans: https://t.example/plans"},
	} {
		n := &models.DueNotice{Kind: test.kind, Threshold: test.threshold, SubjectKind: models.SubjectUser, PeriodStart: month.Start,
			Facts: test.facts}
		if test.kind == models.NoticeOrganizationSpendLimit {
			n.SubjectKind = models.SubjectOrganization
		}
		n.Facts.PeriodEnd = month.End
		m := w.message(n, test.about)
		got, _, _ := strings.Cut(strings.Join(strings.Fields(m.plain()), " "), " Usage: ")
		want(t, string(test.kind), got, test.want)
	}
}

func TestSlackMarkupIsEscaped(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.person("ada@example.com", "T1", "U1")
		f.setRole("ada@example.com", models.Admin)
		acme := f.organizationOf(ada)
		name := "<!channel> & <https://evil.example|x>"
		_, err := f.db.ExecContext(t.Context(), "UPDATE organizations SET name = ?", name)
		must(t, err)
		f.notice(acme, forOrganization, withKind(models.NoticeOrganizationSpendLimit, 0))
		f.drain(f.worker())
		to, blocks, _ := strings.Cut(f.slack.list()[0], " ")
		want(t, "recipient", to, "U1")
		var parsed []struct{ Text struct{ Text string } }
		must(t, json.Unmarshal([]byte(blocks), &parsed))
		if text := parsed[0].Text.Text; !strings.Contains(text, "&lt;!channel&gt; &amp; &lt;https://evil.example|x&gt;") ||
			strings.Contains(text, "<!") || !strings.Contains(text, "<https://tollgate.example.com/org|View usage>") {
			t.Errorf("the text is %q", text)
		}
		if html := mailParts(t, f.smtp.list()[0])["text/html"]; !strings.Contains(html, "&lt;!channel&gt; &amp; ") {
			t.Errorf("the mail is %s", html)
		}
	})
}

// mailParts returns the parts of a mail by their content type.
func mailParts(t *testing.T, received string) map[string]string {
	t.Helper()
	_, text, _ := strings.Cut(received, "\n")
	m, err := mail.ReadMessage(strings.NewReader(text))
	must(t, err)
	_, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	must(t, err)
	parts := map[string]string{}
	for r := multipart.NewReader(m.Body, parameters["boundary"]); ; {
		part, err := r.NextPart()
		if err == io.EOF { //nolint:errorlint // as documented
			return parts
		}
		must(t, err)
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		must(t, err)
		content, err := io.ReadAll(part)
		must(t, err)
		parts[kind] = string(content)
	}
}

func TestMail(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.person("ada@example.com", "T1", "U1")
		notice := f.notice(ada)
		f.drain(f.worker())
		received := f.smtp.list()[0]
		envelope, text, _ := strings.Cut(received, "\n")
		want(t, "envelope", envelope, "RCPT TO:<ada@example.com>")
		m, err := mail.ReadMessage(strings.NewReader(text))
		must(t, err)
		link := regexp.MustCompile(`^<(https://tollgate\.example\.com/unsubscribe\?token=([A-Z2-7]{26}))>$`).
			FindStringSubmatch(m.Header.Get("List-Unsubscribe"))
		if link == nil {
			t.Fatalf("List-Unsubscribe is %q", m.Header.Get("List-Unsubscribe"))
		}
		for _, d := range f.rows(notice) {
			if d.Channel == models.ChannelMail {
				want(t, "Message-ID", m.Header.Get("Message-Id"), "<"+d.ID.String()+"@example.com>")
			}
		}
		for name, wanted := range map[string]string{
			"List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "Subject": "Tollgate: Running low", "From": `"Tollgate" <tollgate@example.com>`,
			"Auto-Submitted": "auto-generated",
		} {
			want(t, name, m.Header.Get(name), wanted)
		}
		for kind, part := range mailParts(t, received) {
			for _, wanted := range []string{"You've used 60 of 75 suggestions (80%)", "https://tollgate.example.com/settings", link[1],
				"https://tollgate.example.com/plans"} {
				if !strings.Contains(strings.ReplaceAll(part, "&#39;", "'"), wanted) {
					t.Errorf("the part %s has no %q: %s", kind, wanted, part)
				}
			}
		}
		// Only the hash of the token is stored.
		person, err := models.Unsubscribed(t.Context(), f.db, link[2])
		if err != nil || person != ada {
			t.Errorf("the token is of %s, %v", person, err)
		}
		if _, err := models.Unsubscribed(t.Context(), f.db, "A"+link[2][1:]+"A"); err == nil {
			t.Error("another token is accepted")
		}
	})
}
