package models_test

import (
	"fmt"
	"testing"
	"time"

	"tollgate/models"
)

func TestScratch(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o, err := models.CreateOrganization(f.ctx, f.db, noon, "Big", []string{"T1"})
		if err != nil {
			t.Fatal(err)
		}
		w := one[models.Workspace](t, f, "slack_team_id = ?", "T1")
		var users []models.User
		var records []models.UsageRecord
		for i := range 20000 {
			u := models.User{ID: newID(), Email: fmt.Sprintf("p%d@example.com", i), WorkspaceID: &w.ID, SlackUserID: ptr(fmt.Sprint("U", i)), Role: models.Member, CreatedAt: noon}
			users = append(users, u)
			records = append(records, models.UsageRecord{Email: u.Email, BillingPeriodStart: november.Start, BillingPeriodEnd: november.End, PlanID: "free", SuggestionsIncluded: 5, SuggestionsUsed: int64(i % 7), CreatedAt: noon})
		}
		for i := 0; i < len(users); i += 1000 {
			f.insert(t, ptr(users[i:i+1000]))
			f.insert(t, ptr(records[i:i+1000]))
		}
		for range 3 {
			start := time.Now()
			s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, o.ID)
			fmt.Println(t.Name(), time.Since(start), err, s.TotalUsers, s.ActiveUsers, s.TotalSuggestions, s.AveragePerUser(), s.TopUsers[0])
		}
		f.exec(t, "ANALYZE")
		for range 3 {
			start := time.Now()
			s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, o.ID)
			fmt.Println(t.Name(), time.Since(start), err, s.TotalUsers, s.ActiveUsers, s.TotalSuggestions, s.AveragePerUser(), s.TopUsers[0])
		}
		l, err := models.ListOrganizations(f.ctx, f.db, f.catalogue)
		fmt.Printf("%+v %v\n", l, err)
	})
}
