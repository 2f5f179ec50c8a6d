package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

type userExport struct {
	Email string `arg:"" help:"The person's email address, or the address that 'user erase' printed for an erased person."`
}

// Run writes everything that is stored about a person.
func (c *userExport) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	return models.ExportUser(ctx, db, catalogue, now(), c.Email, o.Stdout)
}

type userErase struct {
	Email string     `arg:"" help:"The person's email address, or the address that 'user erase' printed for an erased person."`
	Yes   *uuid.UUID `placeholder:"ID" help:"Erase the person, if they have this ID."`
}

// Run erases a person if --yes has their ID. Otherwise it prints what would be erased.
func (c *userErase) Run(ctx context.Context, o *Output, db *models.DB) error {
	if c.Yes == nil {
		return c.preview(ctx, o, db)
	}
	erasure := models.Erasure{DB: db, Now: time.Now, Rest: rest}
	label, err := erasure.Run(ctx, c.Email, *c.Yes)
	if err != nil {
		return err
	}
	customers, err := models.CustomersOf(ctx, db, *c.Yes)
	if err != nil {
		return err
	}
	o.Note("The person %s is erased. Earlier backups still contain the person's data. Delete these backups to remove it.", *c.Yes)
	c.noteCustomers(o, customers)
	return o.Print(label)
}

func (c *userErase) preview(ctx context.Context, o *Output, db *models.DB) error {
	plan, err := models.PlanErasure(ctx, db, c.Email)
	if err != nil {
		return err
	}
	u := &plan.User
	switch {
	case plan.Started:
		o.Note("The erasure of the person %s was interrupted. To continue it, run: tollgate user erase %s --yes %s", u.ID, u.Email, u.ID)
		return nil
	case u.ErasedAt != nil:
		o.Note("The person %s was erased at %s.", u.ID, u.ErasedAt.UTC().Format(time.RFC3339))
		return nil
	}
	if err := o.facts([][2]string{
		{"ID", u.ID.String()}, {"Email", u.Email}, {"Name", orDash(u.Name)}, {"Organization", orDash(u.Organization)},
		{"Would be deleted", fmt.Sprintf("email, name, role; identities: %d; sessions: %d; notice settings and deliveries",
			plan.Identities, plan.Sessions)},
		{"Would remain", fmt.Sprintf("periods: %d; events: %d; holds: %d; grants: %d; voids: %d (without email addresses and idempotency keys)",
			plan.Records, plan.Events, plan.Holds, plan.Grants, plan.Voids)},
		{"Stripe customers", orDash(strings.Join(plan.Customers, ", "))},
	}); err != nil {
		return err
	}
	c.noteCustomers(o, plan.Customers)
	o.Note("Nothing was changed. An erasure cannot be undone. To erase this person, run, with the same --database or --config: "+
		"tollgate user erase %s --yes %s", u.Email, u.ID)
	return nil
}

func (c *userErase) noteCustomers(o *Output, customers []string) {
	if len(customers) > 0 {
		o.Note("Delete the person in Stripe as well, after the final invoice: %s", strings.Join(customers, ", "))
	}
}
