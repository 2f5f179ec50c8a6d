package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

type userCommands struct {
	Set  userSet  `cmd:"" help:"Change a person, and print their ID."`
	List userList `cmd:"" help:"List people."`
	Show userShow `cmd:"" help:"Show a person, their plan and their usage."`

	Export userExport `cmd:"" help:"Write everything that is stored about a person as JSON, without secrets."`
	Erase  userErase  `cmd:"" help:"${help_user_erase}"`
}

type userSet struct {
	Email          string       `arg:"" help:"The person's email address. A person who does not exist is created."`
	Organization   *uuid.UUID   `xor:"organization" placeholder:"ID" help:"${help_user_organization}"`
	NoOrganization bool         `xor:"organization" help:"${help_no_organization}"`
	Role           *models.Role `placeholder:"admin|member" help:"The person's role in the organization."`
	Operator       *bool        `negatable:"" help:"Make the person an operator, who can open the pages under /ops."`
}

// Run prints which identity the address belongs to before it grants a role: an API call may have
// claimed the address.
func (c *userSet) Run(ctx context.Context, o *Output, db *models.DB) error {
	change := models.UserChange{OrganizationID: c.Organization, Leaves: c.NoOrganization, Role: c.Role, Operator: c.Operator}
	if change.Grants() {
		known, err := models.IdentitiesOf(ctx, db, c.Email)
		if err != nil {
			return err
		}
		o.Note("%s", known.Describe())
		change.UserID, change.New = known.UserID, known.UserID == uuid.Nil
	}
	u, err := models.SetUser(ctx, db, now(), c.Email, change)
	return o.printID(u.ID, err)
}

type userList struct {
	Search       string     `placeholder:"TEXT" help:"${help_user_search}"`
	Organization *uuid.UUID `placeholder:"ID" help:"List only the members of this organization."`
}

// Run lists people.
func (c *userList) Run(ctx context.Context, o *Output, db *models.DB) error {
	entries, err := models.ListUsers(ctx, db, models.UserQuery{Search: c.Search, OrganizationID: c.Organization})
	if err != nil {
		return err
	}
	return o.table("ID\tEMAIL\tNAME\tORGANIZATION\tROLE\tOPERATOR", len(entries), func(i int) string {
		u := &entries[i]
		return strings.Join([]string{
			u.ID.String(), u.Email, orDash(u.Name), orDash(u.Organization), string(u.Role), strconv.FormatBool(u.Operator),
		}, "\t")
	})
}

type userShow struct {
	Email string `arg:"" help:"The person's email address, or the address that 'user erase' printed for an erased person."`
}

// Run prints what is known about a person, and their usage in the current billing period.
func (c *userShow) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	u, err := models.UserByLabel(ctx, db, c.Email)
	if err != nil {
		return err
	}
	var known models.Identities
	if u.ErasedAt == nil { // an erased person has none
		if known, err = models.IdentitiesOf(ctx, db, u.Email); err != nil {
			return err
		}
	}
	key := models.RecordKey{UserID: u.ID}
	read, err := models.ReadAhead(ctx, db, catalogue, now(), []models.RecordKey{key})
	if err != nil {
		return err
	}
	s, _, _ := read.Standing(key, nil)
	return o.facts([][2]string{
		{"ID", u.ID.String()}, {"Email", u.Email}, {"Name", orDash(u.Name)}, {"Identities", orDash(strings.Join(known.List(), ", "))},
		{"Organization", orDash(u.Organization)}, {"Role", string(u.Role)}, {"Operator", strconv.FormatBool(u.Operator)},
		{"Plan", string(s.Plan)}, {"Period", period(s.Period)},
		{"Included", strconv.FormatInt(s.Included, 10)},
		{"Used", fmt.Sprintf("%d, %d of them extra", s.Used, s.Overage)}, {"On hold", strconv.FormatInt(s.Held, 10)},
		{"Overage", catalogue.FormatMoney(s.OverageCents)}, {"Spend limit", moneyOr(catalogue, s.SpendLimitCents)},
		{"Member limit", unitsOr(s.MemberLimit)},
	})
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func period(p models.Period) string {
	return p.Start.Format(time.RFC3339) + " to " + p.End.Format(time.RFC3339)
}

func moneyOr(c *models.Catalogue, cents *int64) string {
	if cents == nil {
		return "none"
	}
	return c.FormatMoney(*cents)
}

func unitsOr(units *int64) string {
	if units == nil {
		return "none"
	}
	return models.FormatCount(*units)
}
