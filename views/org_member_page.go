package views

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// OrgMember is one member of the organization, as an admin sees them.
type OrgMember struct {
	Frame        ui.Frame
	Catalogue    *models.Catalogue
	Organization string
	ID           uuid.UUID
	// Name may be empty. Email is also in the Standing, which may fail to load.
	Name, Email string
	Role        models.Role
	// Self means that the viewer is this member. OnlyAdmin means that the organization has no other
	// admin.
	Self, OnlyAdmin bool
	// HasPlan means that the organization has a plan.
	HasPlan  bool
	SignedUp time.Time
	Plan     models.Plan
	// Standing, Days, Months, Moved and Comparison are the same as on the member's own page.
	Standing   Widget[models.Standing]
	Days       Widget[charts.Daily]
	Months     Widget[[]models.PastPeriod]
	Moved      []models.MovedOverage
	Comparison Widget[models.Comparison]
	// OwnLimit is the member's own limit, and DefaultLimit the organization's; nil without one.
	OwnLimit, DefaultLimit *int64
	// LimitForm is the state of the form of the limit. EnteredRole is the role that was sent, if its
	// form is shown again.
	LimitForm   LimitForm
	EnteredRole string
}

// payer says who pays for the member's overage; empty on the free plan.
func (d OrgMember) payer() string {
	switch {
	case d.HasPlan:
		return "Billed to the organization. "
	case billed(d.Plan):
		return "Not billed to the organization. "
	}
	return ""
}

// The IDs of fields that can be invalid.
const (
	FieldIDMemberLimit = "member-limit-units"
	FieldIDRole        = "member-role"
)

// PathMember returns the path of a member's page.
func PathMember(id uuid.UUID) string { return "/org/members/" + id.String() }

// PathMemberLimit takes FieldSeen, FieldChoice and FieldAmount.
func PathMemberLimit(id uuid.UUID) string { return PathMember(id) + "/limit" }

// PathMemberRole takes FieldSeen and FieldRole.
func PathMemberRole(id uuid.UUID) string { return PathMember(id) + "/role" }

// PathMemberRemove takes FieldSeen, the role that the admin saw. As a GET it asks for confirmation.
func PathMemberRemove(id uuid.UUID) string { return PathMember(id) + "/remove" }

func (d OrgMember) limitFields() limitFields {
	return limitFields{
		action: PathMemberLimit(d.ID), current: d.OwnLimit, form: d.LimitForm,
		legend: "Which limit applies to this member?",
		none:   "The organization's default: " + memberLimitText(d.Catalogue, d.DefaultLimit), own: "A limit of their own",
		format: models.FormatCount,
		field: ui.Field{
			ID: FieldIDMemberLimit, Label: "Number of " + d.Catalogue.UnitPlural + " per billing period", InputMode: "numeric", MaxLength: 13,
			Hint: "Counts both included and extra " + d.Catalogue.UnitPlural + ".",
		},
	}.fill(d.Frame.Check)
}

// limitText says which limit applies to the member and what it does.
func (d OrgMember) limitText() string {
	switch {
	case d.OwnLimit != nil:
		return "This member has a limit of their own. " + MemberConsequence(d.Catalogue, "the member", *d.OwnLimit)
	case d.DefaultLimit != nil:
		return "The organization's default applies. " + MemberConsequence(d.Catalogue, "the member", *d.DefaultLimit)
	}
	return "No member limit applies."
}

// OnlyAdmin says why the last admin can neither become a member nor be removed.
const OnlyAdmin = "This is the only admin of the organization. To change the role or remove the admin, first make another member an admin."

func (d OrgMember) roleText() string {
	switch {
	case d.OnlyAdmin:
		return OnlyAdmin
	case d.Self:
		return "This is you. If you change your role to Member, you can no longer open the organization's pages."
	}
	return displayName(d.Name, d.Email) + " is " + map[models.Role]string{models.Admin: "an admin.", models.Member: "a member."}[d.Role]
}

func (d OrgMember) chosenRole(role models.Role) bool {
	if d.EnteredRole != "" {
		return d.EnteredRole == string(role)
	}
	return d.Role == role
}

// roleID returns the ID of a role's radio button. An error links to the first one.
func roleID(role models.Role) string {
	if role == models.Member {
		return FieldIDRole
	}
	return FieldIDRole + "-" + string(role)
}

func roleWord(role models.Role) string {
	if role == models.Admin {
		return "Admin"
	}
	return "Member"
}

func roleMeaning(role models.Role) string {
	if role == models.Admin {
		return "Sees everyone's usage; changes limits, roles and members; manages the plan."
	}
	return "Sees only their own usage."
}

// removalText says what a removal does.
func (d OrgMember) removalText() string {
	who := displayName(d.Name, d.Email)
	switch {
	case d.Self && !d.HasPlan:
		return "You leave the organization and can no longer open its pages. Your own plan and usage do not change. " +
			"The organization's member limit no longer applies to you."
	case !d.HasPlan:
		return who + " leaves the organization immediately. Their own plan and usage do not change. " +
			"The organization's member limit no longer applies to them."
	case d.Self:
		return fmt.Sprintf("You lose the organization's plan and its pages immediately. Your usage so far stays billed to %s.", d.Organization)
	}
	return fmt.Sprintf("%s loses the organization's plan immediately. Their usage so far stays billed to %s.", who, d.Organization)
}

// rejoinText says how to make a removal last.
func rejoinText(d OrgMember) string {
	if d.Self {
		return fmt.Sprintf("First leave the organization's Slack workspaces. Otherwise, your next %s in Slack adds you to the "+
			"organization again.", d.Catalogue.UnitSingular)
	}
	return fmt.Sprintf("First remove this person from the organization's Slack workspaces. Otherwise, their next %s in Slack "+
		"adds them to the organization again.", d.Catalogue.UnitSingular)
}
