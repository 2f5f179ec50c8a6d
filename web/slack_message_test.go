package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/slack-go/slack"

	"tollgate/models"
	"tollgate/views/viewstest"
)

// testMessages returns the messages of a server on which everyone has the same situation.
func testMessages(c *models.Catalogue, in *models.Situation) *slackMessages {
	return &slackMessages{catalogue: c, baseURL: "https://tollgate.example.com",
		situation: func(uuid.UUID) *models.Situation { return in }}
}

// slackLink is a link, a date or a mention in mrkdwn.
var slackLink = regexp.MustCompile(`<([^<>]*)>`)

// checkBlocks fails unless blocks are valid for Slack.
// Source: https://docs.slack.dev/reference/block-kit/blocks
func checkBlocks(t *testing.T, blocks []slackBlock) {
	t.Helper()
	raw, err := json.Marshal(blocks)
	must(t, err)
	var parsed slack.Blocks
	must(t, json.Unmarshal(raw, &parsed))
	if len(blocks) == 0 || len(blocks) > 50 || len(parsed.BlockSet) != len(blocks) {
		t.Errorf("%d blocks, %d of them parsed; want 1 to 50", len(blocks), len(parsed.BlockSet))
	}
	text := func(s slackText, most int) {
		t.Helper()
		if n := utf8.RuneCountInString(s.Text); n < 1 || n > most || !utf8.ValidString(s.Text) {
			t.Errorf("a text has %d characters; want 1 to %d: %q", n, most, s.Text)
		}
		rest := s.Text
		switch {
		case s.Type == "plain_text" && s.Emoji != nil && !*s.Emoji:
		case s.Type == "mrkdwn" && s.Emoji == nil:
			for _, link := range slackLink.FindAllStringSubmatch(s.Text, -1) {
				target, label, _ := strings.Cut(link[1], "|")
				isDate, isLink := strings.HasPrefix(target, "!date^"), strings.HasPrefix(target, "https://tollgate.example.com/")
				if !isDate && !isLink || label == "" || len(target) > 3000 {
					t.Errorf("the link %q in %q", link[0], s.Text)
				}
			}
			rest = slackLink.ReplaceAllString(s.Text, "")
		default:
			t.Errorf("the text %+v", s)
		}
		if strings.ContainsAny(rest, "<>") {
			t.Errorf("< or > is not escaped in %q", s.Text)
		}
	}
	for _, b := range blocks {
		switch b.Type {
		case "section":
			if b.Text == nil || b.Elements != nil {
				t.Fatalf("the section %+v", b)
			}
			text(*b.Text, 3000)
		case "header":
			text(*b.Text, 150)
		case "context":
			if len(b.Elements) < 1 || len(b.Elements) > 10 || b.Text != nil {
				t.Fatalf("the context %+v", b)
			}
			for _, e := range b.Elements {
				text(e, 3000)
			}
		case "divider":
		default:
			t.Errorf("the block %+v", b)
		}
	}
}

func checkMessage(t *testing.T, m slackMessage) {
	t.Helper()
	checkBlocks(t, m.Blocks)
	if n := utf8.RuneCountInString(m.Text); n < 1 || n > 3000 || strings.ContainsAny(m.Text, "<>") || m.ResponseType != "ephemeral" {
		t.Errorf("the text of %d characters %q, for %s", n, m.Text, m.ResponseType)
	}
}

// slackLines returns what blocks say, one line for each text.
func slackLines(blocks []slackBlock) (lines []string) {
	for _, b := range blocks {
		if b.Text != nil {
			lines = append(lines, strings.Split(b.Text.Text, "\n")...)
		}
		var parts []string
		for _, e := range b.Elements {
			parts = append(parts, e.Text)
		}
		if parts != nil {
			lines = append(lines, strings.Join(parts, " | "))
		}
	}
	return lines
}

// slackState is a person at a limit.
type slackState struct {
	name     string
	standing models.Standing
	in       *models.Situation
	quantity int64 // 0: the decision allowed the last unit
	step     string
}

var (
	slackUser   = uuid.MustParse("0193524e-0000-7000-8000-000000000001")
	slackOwn    = &models.Situation{UserID: slackUser}
	slackAdmin  = &models.Situation{UserID: slackUser, Organization: "Acme", OrganizationID: &slackUser, Admin: true, PaidByOrganization: true}
	slackMember = slackMemberOf("Ada Admin")
)

func slackMemberOf(admins ...string) *models.Situation {
	in := &models.Situation{UserID: slackUser, Organization: "Acme", OrganizationID: &slackUser, PaidByOrganization: true}
	for _, name := range admins {
		in.Admins = append(in.Admins, models.OrganizationAdmin{Name: name, Email: "admin@example.com"})
	}
	return in
}

func slackStates() []slackState {
	const usage = "<https://tollgate.example.com/usage#spend-limit|"
	free := models.Standing{Plan: "free", Used: 4, Included: 5}
	empty := models.Standing{Plan: "free", Used: 5, Included: 5}
	trial := models.Standing{Plan: "pro", Used: 72, Included: 75} // during a trial, the rate is 0
	below := models.Standing{Plan: "pro", Used: 60, Included: 75, OverageRateCents: 30}
	above := models.Standing{Plan: "pro", Used: 78, Included: 75, Overage: 3, OverageCents: 90, OverageRateCents: 30}
	with := func(s models.Standing, change func(*models.Standing)) models.Standing { change(&s); return s }
	paused := with(above, func(s *models.Standing) { s.SpendLimitCents = new(int64(90)) })
	member := with(below, func(s *models.Standing) { s.MemberLimit = new(int64(60)) })
	organization := with(above, func(s *models.Standing) {
		s.Organization = models.OrganizationSpend{Cents: 500, LimitCents: new(int64(500))}
	})
	late := with(below, func(s *models.Standing) { s.PastDue, s.Used = true, 75 })
	const pay = "<https://tollgate.example.com/usage|Update the payment method>"
	const upgrade, compare = "<https://tollgate.example.com/plans|Upgrade your plan>", "<https://tollgate.example.com/plans|Compare plans>"
	const noAdmin = "Your organization has no admin. Ask the operator of this service to add one."
	return []slackState{
		{"free, warning", free, slackOwn, 0, upgrade},
		{"free, nothing left", empty, slackOwn, 0, upgrade},
		{"free, refused", empty, slackOwn, 1, upgrade},
		{"free, more than is left", free, slackOwn, 2, upgrade},
		{"free, in an organization without a plan", empty, &models.Situation{Organization: "Acme", OrganizationID: &slackUser}, 1, upgrade},
		{"trial of one's own", trial, slackOwn, 0, upgrade},
		{"trial of the organization, member", trial, slackMember, 4, "Ask Ada Admin to upgrade the plan."},
		{"trial of the organization, admin", trial, slackAdmin, 4, upgrade},
		{"paid, included units left", below, slackOwn, 0, compare},
		{"paid, beyond the included units", above, slackOwn, 0, compare},
		{"paid by the organization, member", below, slackMember, 0, usage + "Set a spend limit>"},
		{"paid by the organization, member beyond the included units", with(above, func(s *models.Standing) {
			s.SpendLimitCents = new(int64(9000))
		}), slackMember, 0, usage + "Change your spend limit>"},
		{"paid by the organization, admin", above, slackAdmin, 0, compare},
		{"own spend limit reached", paused, slackOwn, 0, usage + "Raise your spend limit>"},
		{"own spend limit, refused", paused, slackMember, 1, usage + "Raise your spend limit>"},
		{"member limit reached", member, slackMember, 0, "Ask Ada Admin to raise your member limit."},
		{"member limit, refused", member, slackMemberOf("Ada Admin", "Bob Boss"), 1, "Ask Ada Admin or Bob Boss to raise your member limit."},
		{"member limit, three admins", member, slackMemberOf("Ada", "Bob", "Cy"), 1, "Ask Ada, Bob or another admin to raise your member limit."},
		{"member limit, admin", member, slackAdmin, 1,
			"<https://tollgate.example.com/org/members/" + slackUser.String() + "#limit|Raise your member limit>"},
		{"member limit, no admin", member, slackMemberOf(), 1, noAdmin},
		{"organization limit reached", organization, slackMember, 0, "Ask Ada Admin to raise the organization's spend limit."},
		{"organization limit, admin", organization, slackAdmin, 1,
			"<https://tollgate.example.com/org#spend-limit|Raise the organization's spend limit>"},
		{"organization limit, no admin", organization, slackMemberOf(), 1, noAdmin},
		{"past due, own", late, slackOwn, 1, pay},
		{"past due, admin", late, slackAdmin, 0, pay},
		{"past due, member", late, slackMember, 1, "Ask Ada Admin to update the payment method."},
		{"past due, units left", with(late, func(s *models.Standing) { s.Used = 60 }), &models.Situation{PastDue: true}, 0, pay},
		{"unpaid, nothing left", empty, &models.Situation{Suspended: true}, 1, pay},
		{"unknown situation, member limit", member, nil, 1, "Ask an admin of your organization to raise your member limit."},
		{"unknown situation, nothing left", empty, nil, 1, upgrade},
		{"unknown situation, organization limit", organization, nil, 1,
			"Ask an admin of your organization to raise the organization's spend limit."},
	}
}

// TestSlackMessages checks the message of each state: its next step, and Slack's rules for blocks.
func TestSlackMessages(t *testing.T) {
	c, err := models.LoadCatalogue("")
	must(t, err)
	for _, state := range slackStates() {
		t.Run(state.name, func(t *testing.T) {
			s, v := state.standing, models.Verdict{Allowed: true}
			s.Period = models.Period{Start: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
			if state.quantity > 0 {
				if v = models.Decide(s, state.quantity); v.Allowed {
					t.Fatal("it is not refused")
				}
			}
			notice := c.Notice(s, v)
			m := testMessages(c, state.in).message(&s, v, notice, state.in)
			checkMessage(t, m)
			lines := slackLines(m.Blocks)
			t.Log("\n" + strings.Join(lines, "\n"))
			if len(lines) != 4 || lines[2] != state.step {
				t.Errorf("got %q, want the step %q", lines, state.step)
			}
			figures := s.Figures()
			replayed := figures.Standing(s.UserID, s.Email)
			if again := testMessages(c, state.in).message(&replayed, v, c.Notice(replayed, v), state.in); !reflect.DeepEqual(again, m) {
				t.Errorf("a retry gets %q", slackLines(again.Blocks))
			}
			const date = "<!date^1796083200^{date_short}, {time}|Dec 1, 2026, 00:00 UTC>"
			if !strings.HasSuffix(lines[1], " reset on "+date+".") || slackLink.ReplaceAllString(lines[1], "Dec 1, 2026, 00:00 UTC") != notice {
				t.Errorf("the block says %q, the notice %q", lines[1], notice)
			}
			if !strings.HasPrefix(m.Text, notice+" ") {
				t.Errorf("the text is %q", m.Text)
			}
		})
	}
}

// TestSlackNames writes names with Slack's special characters, emoji, text from right to left and
// 300 characters. None of them gets a format or becomes a link or a mention.
func TestSlackNames(t *testing.T) {
	for _, name := range []string{
		"R&D <!channel> <@U1>", "*bold* _it_ ~no~ `code`", "👩‍👩‍👧 :wave:", "מנהלת עדה", "a\u202eb\nc",
		strings.Repeat("n", 300), strings.Repeat("&", 300), strings.Repeat("😀", 300), "https://evil.example.com", "|>",
	} {
		c, err := models.LoadCatalogue("")
		must(t, err)
		for i := range c.Plans {
			c.Plans[i].Name = name
		}
		c.UnitPlural = strings.Repeat("<&>", 160)
		in := slackMemberOf(name, name, name)
		in.Organization = name
		for _, state := range slackStates() {
			v := models.Decide(state.standing, max(1, state.quantity))
			m := testMessages(c, in).message(&state.standing, v, c.Notice(state.standing, v), in)
			checkMessage(t, m)
			for _, b := range m.Blocks {
				if b.Text != nil && b.Text.Type == "mrkdwn" && strings.Contains(b.Text.Text, slackEscape.Replace(name)) {
					t.Errorf("a name in mrkdwn: %q", b.Text.Text)
				}
			}
		}
	}
}

// TestSituations caches what messages need, and waits for it only for a short time.
func TestSituations(t *testing.T) {
	var reads atomic.Int64
	reading, answer := make(chan struct{}), make(chan error)
	c := newSituations(nil, slog.New(slog.DiscardHandler))
	c.read = func(context.Context, uuid.UUID) (*models.Situation, error) {
		reads.Add(1)
		reading <- struct{}{}
		return slackAdmin, <-answer
	}
	late := make(chan *models.Situation)
	go func() { late <- c.of(slackUser) }()
	<-reading
	start := time.Now()
	if got := <-late; got != nil || time.Since(start) > 10*situationPatience {
		t.Errorf("a slow read: %+v after %s", got, time.Since(start))
	}
	joined := make(chan *models.Situation)
	go func() { joined <- c.of(slackUser) }() // waits for the same read, or finds its result
	answer <- nil
	<-joined
	for c.of(slackUser) != slackAdmin { // until the read has stored its result
	}
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads, want 1", n)
	}
	other := uuid.New()
	go func() { <-reading; answer <- errors.New("no database") }()
	c.read = func(context.Context, uuid.UUID) (*models.Situation, error) {
		reads.Add(1)
		reading <- struct{}{}
		return nil, <-answer
	}
	if got := c.of(other); got != nil || c.of(other) != nil || reads.Load() != 2 {
		t.Errorf("an error: %+v after %d reads", got, reads.Load())
	}
	if c.of(slackUser) != slackAdmin {
		t.Error("the cache lost a person")
	}
}

// TestSlackLinksExist opens the pages that messages link to, and looks for the places on them.
func TestSlackLinksExist(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		browser := f.withAdmins()
		in := *slackAdmin
		in.UserID = f.user("ada@example.com").ID
		var linked []string
		for _, state := range slackStates() {
			v := models.Decide(state.standing, max(1, state.quantity))
			for _, situation := range []*models.Situation{&in, slackOwn} {
				if step := f.web.catalogue.NextStep(state.standing, v, situation); step.Path != "" && !slices.Contains(linked, step.Path) {
					linked = append(linked, step.Path)
				}
			}
		}
		for _, path := range linked {
			page, place, _ := strings.Cut(path, "#")
			if p := browser.get(page); p.status != 200 || place != "" && !strings.Contains(p.body, `id="`+place+`"`) {
				t.Errorf("%s: %d, or it has no place %q", page, p.status, place)
			}
		}
		if len(linked) < 5 {
			t.Errorf("only %q", linked)
		}
	})
}

// The slash command's percentage is that of the included units: extra units are in the cost.
func TestSlackUsagePercent(t *testing.T) {
	c, err := models.LoadCatalogue("")
	must(t, err)
	in := slackMemberOf("Ada")
	for want, s := range map[string]models.Standing{
		"75 of 75 suggestions used (100%), 0 left.": {Plan: "pro", Used: 78, Included: 75, Overage: 3, OverageCents: 90, OverageRateCents: 30},
		"7 of 5 suggestions used (140%), 0 left.":   {Plan: "free", Used: 7, Included: 5},
		"0 of 0 suggestions used (100%), 0 left.":   {Plan: "pro", Used: 3, Overage: 3, OverageCents: 90, OverageRateCents: 30},
		"60 of 75 suggestions used (80%), 15 left.": {Plan: "pro", Used: 60, Included: 75, OverageRateCents: 30},
		"0 left under your member limit of 20. Paused · Member limit reached.": {
			Plan: "pro", Used: 20, Included: 75, OverageRateCents: 30, MemberLimit: new(int64(20)),
		},
		"0 left under your member limit of 70. Level: Critical · Member limit reached.": {
			Plan: "pro", Used: 72, Included: 75, OverageRateCents: 30, MemberLimit: new(int64(70)),
		},
	} {
		if m := testMessages(c, in).usage(&s, models.Decide(s, 1), in); !strings.Contains(m.Text, want) {
			t.Errorf("the text is %q, want %q", m.Text, want)
		}
	}
}

func TestSlackUsageOfAPlanThatIncludesNone(t *testing.T) {
	in, s := slackMemberOf("Ada"), models.Standing{Plan: "pro", Used: 3, Overage: 3, OverageCents: 90, OverageRateCents: 30}
	m := testMessages(viewstest.NoneIncluded(t), in).usage(&s, models.Decide(s, 1), in)
	if want := "3 suggestions used. The plan includes none."; !strings.Contains(m.Text, want) {
		t.Errorf("the text is %q, want %q", m.Text, want)
	}
}

// The amount that counts toward the spend limit is shown only if it is not the overage of the members.
func TestSlackOrganizationSpend(t *testing.T) {
	c, err := models.LoadCatalogue("")
	must(t, err)
	for _, test := range []struct {
		name  string
		spent *models.OrganizationRecord
		want  string
	}{
		{"the members' overage", &models.OrganizationRecord{OverageCents: 720, Counted: true}, " Spend limit: $50.00. Estimate,"},
		{"not counted yet", &models.OrganizationRecord{}, " Spend limit: $50.00. Estimate,"},
		{"with former members and holds", &models.OrganizationRecord{OverageCents: 1240, OverageCentsHeld: 60, Counted: true},
			" Spend limit: $50.00. Spent $12.40 of $50.00, and $0.60 more is on hold for work in progress. $5.20 of the spent amount is not " +
				"in the overage above. It was used by people who have left, or by current members before they left and rejoined. Estimate,"},
		{"without overage that is not billed", &models.OrganizationRecord{OverageCents: 300, Counted: true},
			" Spend limit: $50.00. Spent $3.00 of $50.00. $4.20 of the overage above is not billed to the organization's subscription. Estimate,"},
	} {
		o := models.OrganizationSummary{
			Name: "Acme", HasPlan: true, OverageUnits: 36, OverageCents: 720, OverageRateCents: 20,
			SpendLimitCents: new(int64(5000)), Spent: test.spent,
		}
		if m := testMessages(c, slackAdmin).organization(&o); !strings.Contains(m.Text, "Overage so far: 36 suggestions, $7.20."+test.want) {
			t.Errorf("%s: the text is %q, want %q", test.name, m.Text, test.want)
		}
	}
}
