package cli

import (
	"context"

	"tollgate/models"
)

type backupCommand struct {
	File string `arg:"" help:"The file to create. An existing file is not overwritten."`
}

// Run copies an existing database. It does not open the database as other commands do, because they
// create a missing one.
func (c *backupCommand) Run(ctx context.Context, o *Output, s *Settings) error {
	size, err := models.Backup(ctx, s.Database, c.File)
	if err != nil {
		return err
	}
	o.Note("wrote %d bytes; to check the copy, run: tollgate verify --database sqlite:%s", size, c.File)
	return o.Print(c.File)
}
