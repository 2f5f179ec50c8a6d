package cli

import "tollgate/models"

type migrateCommand struct{}

// Run prints how many migrations were applied when the database was opened, and whether a newer
// release was there first.
func (migrateCommand) Run(o *Output, db *models.DB) error {
	if n := len(db.Unknown); n > 0 {
		o.Note("a newer release applied migrations that this release does not know: %d; this release can still use the database", n)
	}
	o.Note("the database is up to date; migrations applied now: %d", len(db.Applied))
	return nil
}
