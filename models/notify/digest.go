package notify

import (
	"context"
	"fmt"

	"tollgate/models"
)

// digest writes the daily summaries of organizations.
func (w *Worker) digest(context.Context) (bool, error) { return false, nil }

func digestText(c *models.Catalogue, name string, f *models.NoticeFacts) []string {
	return []string{fmt.Sprintf("%s %s %d", c.UnitPlural, name, f.Used)}
}
