package billing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// Tollgate learns of a trial and of a failed payment through webhooks. Each notice is stored once,
// and a trial whose end moves gets another one.
func TestNoticesOfSubscriptions(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		ada := f.email("ada@example.com")
		f.stub.customer("cus_1", object{"tollgate_user": ada})
		start := f.at.Add(-time.Hour)
		first, moved := f.at.AddDate(0, 0, 14), f.at.AddDate(0, 0, 20)
		for _, s := range []struct {
			name   string
			change object
			want   string
		}{
			{"trial", subscription("cus_1", "starter", "trialing", start, 1), ""},
			{"its end", object{"trial_end": first.Unix()}, "trial_ending due 11.0"},
			{"again", object{}, "trial_ending due 11.0"},
			{"a later end", object{"trial_end": moved.Unix()}, "trial_ending due 11.0, trial_ending due 17.0"},
			{"paid", object{"status": "active"}, "trial_ending due 11.0, trial_ending due 17.0"},
			{"past due", object{"status": "past_due"}, "payment_past_due due 0.0, trial_ending due 11.0, trial_ending due 17.0"},
			{"past due again", object{}, "payment_past_due due 0.0, trial_ending due 11.0, trial_ending due 17.0"},
		} {
			f.at = f.at.Add(time.Minute)
			f.stub.set("sub_1", s.change)
			f.sendEvent("customer.subscription.updated", "cus_1")
			var rows []models.DueNotice
			if err := f.db.NewSelect().Model(&rows).Order("due_at", "created_at").Scan(t.Context()); err != nil {
				f.Fatal(err)
			}
			var texts []string
			for _, n := range rows {
				if n.Subject.String() != ada || n.State != models.NoticePending || n.Facts.Plan != "starter" {
					f.Errorf("%s: %+v", s.name, n)
				}
				days := n.DueAt.Sub(start.Add(time.Hour)).Hours() / 24
				texts = append(texts, fmt.Sprintf("%s due %.1f", n.Kind, days))
			}
			if got := strings.Join(texts, ", "); got != s.want {
				f.Errorf("%s: the notices are %q, want %q", s.name, got, s.want)
			}
		}
	})
}
