package models

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Situation is what a person's next step depends on, beside their standing.
type Situation struct {
	UserID uuid.UUID
	Email  string
	// OrganizationID is the person's organization; nil without one. Organization is its name.
	OrganizationID *uuid.UUID
	Organization   string
	// Admin means that the person is an admin of the organization.
	Admin bool
	// Admins are up to three admins of the organization, sorted by email.
	Admins []OrganizationAdmin
	// PaidByOrganization means that the organization's subscription gives the person their plan.
	PaidByOrganization bool
	// PastDue means that the payment of that subscription, or of the person's own, failed. Trial means
	// that it is in its trial, and ExtraAfterTrial that it then continues and bills extra units.
	PastDue, Trial, ExtraAfterTrial bool
	// Suspended means that the person has no plan because a subscription is unpaid or paused that they
	// manage: their own, or the organization's if they are an admin.
	Suspended bool
}

// OrganizationAdmin is an admin as other members see them.
type OrganizationAdmin struct{ Name, Email string }

// maxAdminsNamed is one more than the number of admins that a text names: with three or more, it
// says "or another admin".
const maxAdminsNamed = 3

// SituationOf returns the situation of a person; nil if there is no such person. It takes one round
// trip to the database.
func SituationOf(ctx context.Context, db bun.IDB, user uuid.UUID) (*Situation, error) {
	return situation(ctx, db, db.NewSelect().TableExpr("users AS k").Column("k.id").Where("k.id = ?", user))
}

// SituationBySlack returns the situation of the person with a Slack identity; nil if the identity is
// unknown. It takes one round trip to the database.
func SituationBySlack(ctx context.Context, db bun.IDB, identity SlackIdentity) (*Situation, error) {
	return situation(ctx, db, identitiesQuery(db, []SlackIdentity{identity}).Column("u.id"))
}

// situation returns the situation of the person whose ID the query selects. The first row is the
// person, and the other rows are the admins.
func situation(ctx context.Context, db bun.IDB, person *bun.SelectQuery) (*Situation, error) {
	const member = "FROM users u JOIN workspaces w ON w.id = u.workspace_id JOIN workspaces aw ON aw.organization_id = w.organization_id " +
		"JOIN users a ON a.workspace_id = aw.id AND a.role = 'admin' WHERE u.id = (?)"
	query := db.NewRaw(`SELECT 0 AS sort, u.id, u.email, home.id AS organization_id, COALESCE(home.name, '') AS name, u.role,
			s.organization_id AS payer, COALESCE(s.status, '') AS status,
			CASE WHEN s.cancel_at IS NULL AND s.overage_rate_cents > 0 THEN 1 ELSE 0 END AS extra,
			CASE WHEN s.id IS NULL AND EXISTS (SELECT 1 FROM subscriptions x
				WHERE (x.user_id = u.id OR u.role = 'admin' AND x.organization_id = home.id) AND `+hasStatus("x", suspendedStatuses)+`)
				THEN 1 ELSE 0 END AS suspended
		FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN organizations home ON home.id = w.organization_id
		LEFT JOIN subscriptions s ON s.id = `+entitlingSubscription+` WHERE u.id = (?)
		UNION ALL SELECT * FROM (SELECT 1 AS sort, a.id, a.email, CAST(NULL AS uuid) AS organization_id, a.name, a.role,
			CAST(NULL AS uuid) AS payer, '' AS status, 0 AS extra, 0 AS suspended
			`+member+` ORDER BY a.email LIMIT ?) admins ORDER BY 1, 3`, person, person, maxAdminsNamed)
	var found *Situation
	err := eachRow(ctx, db, query, func(row scanner) error {
		var sort, extra, suspended int
		var id uuid.UUID
		var email, name string
		var role Role
		var organization, payer *uuid.UUID
		var status SubscriptionStatus
		if err := row.Scan(&sort, &id, &email, &organization, &name, &role, &payer, &status, &extra, &suspended); err != nil {
			return err
		}
		if sort == 0 {
			found = &Situation{UserID: id, Email: email, OrganizationID: organization, Organization: name,
				Admin: role == Admin && organization != nil, PaidByOrganization: payer != nil,
				PastDue: status == StatusPastDue, Trial: status == StatusTrialing, ExtraAfterTrial: extra == 1,
				Suspended: suspended == 1}
		} else if found != nil {
			found.Admins = append(found.Admins, OrganizationAdmin{name, email})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what a person can do about their limit: %w", err)
	}
	return found, nil
}

// NextStep is the one thing that a person can do about their limit.
type NextStep struct {
	// Text is a command, such as "Upgrade your plan" or "Ask Ada Admin to upgrade the plan.". It ends
	// with a period unless it is the text of a link.
	Text string
	// Path is the page on which the person does it; empty if they must ask someone.
	Path string
}

// NextStep returns what a person with this standing can do after a decision. in is nil if their
// situation is unknown.
func (c *Catalogue) NextStep(s Standing, v Verdict, in *Situation) NextStep {
	reason := v.Reason
	if v.Allowed {
		reason = s.nextRefusal()
	}
	mayPay := in == nil || in.Admin || !in.PaidByOrganization
	trial := in != nil && in.Trial // no larger plan can be bought before its end
	switch {
	case reason == MemberLimitReached:
		if in != nil && in.Admin {
			return NextStep{"Raise your member limit", "/org/members/" + in.UserID.String() + "#limit"}
		}
		return in.ask("raise your member limit")
	case reason == PaymentPastDue, in != nil && (in.PastDue || in.Suspended):
		if mayPay {
			return NextStep{"Update the payment method", "/usage"}
		}
		return in.ask("update the payment method")
	case reason == SpendLimitReached:
		return NextStep{"Raise your spend limit", "/usage#spend-limit"}
	case reason == OrganizationSpendLimitReached:
		if in != nil && in.Admin {
			return NextStep{"Raise the organization's spend limit", "/org#spend-limit"}
		}
		return in.ask("raise the organization's spend limit")
	case mayPay && s.OverageRateCents <= 0 && !trial:
		return NextStep{"Upgrade your plan", "/plans"}
	case mayPay:
		return NextStep{"Compare plans", "/plans"}
	case trial && in.ExtraAfterTrial && s.OverageRateCents <= 0:
		return NextStep{Text: "Extra " + c.UnitPlural + " are available after the trial."}
	case trial && s.OverageRateCents <= 0:
		return in.ask("choose a plan for the time after the trial")
	case s.OverageRateCents <= 0:
		return in.ask("upgrade the plan")
	case s.SpendLimitCents == nil:
		return NextStep{"Set a spend limit", "/usage#spend-limit"}
	}
	return NextStep{"Change your spend limit", "/usage#spend-limit"}
}

// Paused reports whether one more unit would be refused.
func (s Standing) Paused() bool { return s.nextRefusal() != nextAllowed }

// ask returns the step of a person who must ask an admin to do something.
func (in *Situation) ask(do string) NextStep {
	switch {
	case in == nil:
		return NextStep{Text: "Ask an admin of your organization to " + do + "."}
	case len(in.Admins) == 0:
		return NextStep{Text: "Your organization has no admin. Ask the operator of this service to add one."}
	}
	return NextStep{Text: "Ask " + in.AdminNames() + " to " + do + "."}
}

// AdminNames names the admins: "Ada Admin", "Ada Admin or Bob Boss", or "Ada Admin, Bob Boss or
// another admin". It is empty without admins.
func (in *Situation) AdminNames() string {
	var known []string
	for _, a := range in.Admins {
		if name := NameInText(a.Name, a.Email); name != "" {
			known = append(known, name)
		}
	}
	switch others := len(in.Admins) > len(known) || len(known) > 2; {
	case len(in.Admins) == 0:
		return ""
	case len(known) == 0:
		return "an admin of your organization"
	case others:
		return strings.Join(known[:min(2, len(known))], ", ") + " or another admin"
	}
	return strings.Join(known, " or ")
}

// maxNameShown is the maximum number of characters of a name in a message.
const maxNameShown = 80

// NameInText returns a person's name, or else their email, for use within a sentence, as OneLine
// does. It is empty if there is only a placeholder.
func NameInText(name, email string) string {
	text := OneLine(name, maxNameShown)
	if text == "" && !isPlaceholder(email) {
		text = OneLine(email, maxNameShown)
	}
	return text
}

const (
	firstStrongIsolate    = "\u2068"
	popDirectionalIsolate = "\u2069"
)

// OneLine returns a name that a person chose for use within a sentence: on one line, without control
// characters, at most limit characters long, and isolated from the text around it if it is written
// from right to left.
func OneLine(name string, limit int) string {
	rightToLeft := false
	name = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		case unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana, unicode.Nko):
			rightToLeft = true
		}
		return r
	}, name)), " ")
	if letters := []rune(name); len(letters) > limit {
		name = string(letters[:limit-1]) + "…"
	}
	if rightToLeft {
		return firstStrongIsolate + name + popDirectionalIsolate
	}
	return name
}
