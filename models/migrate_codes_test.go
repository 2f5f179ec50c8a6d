package models_test

import (
	"testing"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const codesMigration = "20261128100000"

// Values that earlier releases stored as texts are converted to codes.
func TestCodesAreMigrated(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		exec, open := oldDatabase(t, address, codesMigration)
		exec(`
INSERT INTO organizations (id, name, created_at) VALUES
	('00000000-0000-4000-8000-000000000001', 'Slack team T1', '2026-01-01 00:00:00+00:00'),
	('00000000-0000-4000-8000-000000000002', 'Slack team T1', '2026-01-01 00:00:00+00:00'),
	('00000000-0000-4000-8000-000000000003', 'Acme', '2026-01-01 00:00:00+00:00');
INSERT INTO workspaces (id, organization_id, slack_team_id, name, created_at) VALUES
	('00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000001', 'T1', 'T1', '2026-01-01 00:00:00+00:00'),
	('00000000-0000-4000-8000-000000000013', '00000000-0000-4000-8000-000000000003', 'T3', 'T3', '2026-01-01 00:00:00+00:00');
INSERT INTO stripe_streams (stripe_customer_id, meter_event_name, blocked) VALUES
	('cus_1', 'm', 'The meter takes nothing. Bad Request: No meter'), ('cus_2', 'm', 'Bad Request: No such customer'), ('cus_3', 'm', NULL);
UPDATE stripe_state SET paused = 'the database was restored: run it again' WHERE id = 1`)
		old := open()
		if o := one[models.Organization](t, old, "automatic"); o.Name != "Slack team T1" || o.ID.String()[35:] != "1" {
			t.Errorf("%+v is automatic", o)
		}
		want := map[string]models.BlockedKind{"cus_1": models.BlockedByMeter, "cus_2": models.BlockedByCustomer, "cus_3": ""}
		for _, s := range all[models.StripeStream](t, old, "stripe_customer_id") {
			if s.BlockedKind != want[s.StripeCustomerID] {
				t.Errorf("%s is blocked by %q, want %q", s.StripeCustomerID, s.BlockedKind, want[s.StripeCustomerID])
			}
		}
		if s := one[models.StripeState](t, old, "id = 1"); s.PausedKind != models.PausedRestored {
			t.Errorf("the pause has the kind %q", s.PausedKind)
		}
	})
}
