package cli

import (
	"context"
	"fmt"

	"tollgate/models"
)

type verifyCommand struct{}

// Run prints each difference, and returns an error if there is one.
func (verifyCommand) Run(ctx context.Context, o *Output, db *models.DB) error {
	differences := 0
	counted, err := models.Recount(ctx, db, func(d models.Difference) {
		differences++
		_ = o.Print(d)
	})
	if err != nil {
		return err
	}
	o.Note("%s", counted)
	if differences > 0 {
		o.Note("either the database was changed by hand, or this is a bug in Tollgate: make a backup, and report the problem with this output")
		return fmt.Errorf("verify: differences: %d", differences)
	}
	o.Note("every record and report equals the sum of its events")
	return nil
}
