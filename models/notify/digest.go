package notify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

const (
	// digestHour is the hour, in UTC, from which the day's summaries are written.
	digestHour = 8
	// digestMembers is the maximum number of members that a summary names.
	digestMembers = 10
	digestLife    = 24 * time.Hour
)

// digest writes the day's summaries: one for each organization with a member at the warning level or
// above, if those members or their levels changed since its last summary. Any number of processes may
// do so. It reports whether it wrote one.
func (w *Worker) digest(ctx context.Context) (bool, error) {
	now := w.now()
	day := now.Truncate(24 * time.Hour)
	if now.Hour() < digestHour || w.digested.Equal(day) {
		return false, nil
	}
	var organizations []uuid.UUID
	err := w.DB.NewRaw(`SELECT DISTINCT w.organization_id FROM usage_records r JOIN workspaces w ON w.id = r.present_workspace_id
		WHERE r.billing_period_start <= ? AND r.billing_period_end > ? AND r.suggestions_used > 0
			AND (r.suggestions_used + r.units_held) * 100 >= (r.suggestions_included + r.granted) * 80
			AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.subject = w.organization_id AND n.kind = ? AND n.period_start = ?)`,
		now, now, models.NoticeDigest, day).Scan(ctx, &organizations)
	if err != nil {
		return false, fmt.Errorf("find organizations for a summary: %w", err)
	}
	wrote := false
	for _, id := range organizations {
		n, err := w.digestOf(ctx, now, day, id)
		if err != nil {
			return false, fmt.Errorf("write the summary of the organization %s: %w", id, err)
		}
		if n == nil {
			continue
		}
		if _, err := w.DB.NewInsert().Model(n).On("CONFLICT (subject, kind, period_start, threshold, raises) DO NOTHING").Exec(ctx); err != nil {
			return false, fmt.Errorf("write the summary of the organization %s: %w", id, err)
		}
		wrote = true
	}
	w.digested = day
	return wrote, nil
}

// digestOf returns an organization's summary; nil if there is nothing new to say.
func (w *Worker) digestOf(ctx context.Context, now, day time.Time, id uuid.UUID) (*models.DueNotice, error) {
	list, err := models.FindMembers(ctx, w.DB, w.Catalogue, now, id, models.MemberQuery{
		Sort: models.SortLevel, Descending: true, Page: 1, PerPage: digestMembers + 1,
	})
	if err != nil {
		return nil, err
	}
	var facts models.NoticeFacts
	for i := range list.Rows {
		r := &list.Rows[i]
		if level := r.Standing.Level(); level != models.Safe {
			name := cmp.Or(models.NameInText(r.Name, r.Standing.Email), "A member without a name")
			facts.Members = append(facts.Members, models.DigestMember{
				ID: r.ID, Name: name, Level: level, Used: r.Standing.Used, Overage: r.Standing.Overage, Included: r.Standing.Included,
				PeriodEnd: r.Standing.Period.End,
			})
		}
	}
	if len(facts.Members) == 0 {
		return nil, nil
	}
	var last []models.DueNotice
	if err := w.DB.NewSelect().Model(&last).Where("subject = ? AND kind = ?", id, models.NoticeDigest).Order("period_start DESC").Limit(1).
		Scan(ctx); err != nil {
		return nil, err
	}
	same := func(a, b models.DigestMember) bool {
		return a.ID == b.ID && a.Level == b.Level && a.PeriodEnd.Equal(b.PeriodEnd)
	}
	if len(last) > 0 && slices.EqualFunc(last[0].Facts.Members, facts.Members, same) {
		return nil, nil
	}
	return &models.DueNotice{
		ID: uuid.Must(uuid.NewV7()), Subject: id, SubjectKind: models.SubjectOrganization, Kind: models.NoticeDigest, PeriodStart: day,
		Facts: facts, State: models.NoticePending, CreatedAt: now, DueAt: now, ExpiresAt: now.Add(digestLife),
	}, nil
}

// digestText returns the sentences of a summary.
func digestText(c *models.Catalogue, organization string, f *models.NoticeFacts) []string {
	text := []string{"These members of " + organization + " are near or over their included " + c.UnitPlural + ":"}
	for i, m := range f.Members {
		if i == digestMembers {
			text = append(text, "More members are near or over their included "+c.UnitPlural+".")
			break
		}
		included, beyond := min(m.Used-m.Overage, m.Included), ""
		if m.Used > included {
			beyond = ", and " + models.FormatCount(m.Used-included) + " beyond the plan"
		}
		text = append(text, fmt.Sprintf("%s: %s of %s included %s used%s (%s)", m.Name, models.FormatCount(included),
			models.FormatCount(m.Included), c.UnitPlural, beyond, m.Level))
	}
	return text
}
