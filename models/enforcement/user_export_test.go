package enforcement_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"tollgate/models"
)

// TestExportHasEverything looks for each mark of the person's rows in the export.
func TestExportHasEverything(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		export := func(label string) (string, map[string]any) {
			var out bytes.Buffer
			must(t, models.ExportUser(f.ctx, f.db, f.catalogue, f.now, label, &out))
			var document map[string]any
			if err := json.Unmarshal(out.Bytes(), &document); err != nil {
				t.Fatalf("%v in\n%s", err, &out)
			}
			return out.String(), document
		}
		text, document := export("Marked@Example.com")
		for _, want := range []string{
			markedEmail, earlierEmail, "Marked Person", "UMARKED", `"T1"`, "Acme", "sub-marked", "cus_1", "sub_1", "key-marked-1", "key-marked-2",
			"hold-marked-1", "hold-marked-2", "Marked Person asked", "gift for Marked", "grant-marked", "550 marked@example.com is full",
			"spend_limit", "first_overage", "included_exhausted", "sign_in_link.create", "event.void", "grant.create",
			`"start":"2026-11-01T00:00:00Z"`, `"currency":"usd"`, m.event.String(), m.hold.String(), m.acme.String(),
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the export has no %s", want)
			}
		}
		for _, secret := range append(m.secrets, "UB", "Bob") {
			if strings.Contains(text, secret) {
				t.Errorf("the export has %q", secret)
			}
		}
		for list, n := range map[string]int{
			"memberships": 1, "identities": 1, "stripe_customers": 1, "subscriptions": 1, "periods": 1, "events": 4, "deleted_events": 0,
			"holds": 2, "grants": 1, "voids": 1, "refusals": 1, "notices": 2, "notice_deliveries": 2, "notice_attempts": 2,
			"notice_settings": 1, "sessions": 1, "sign_in_links": 1,
		} {
			if got, _ := document[list].([]any); len(got) != n {
				t.Errorf("%d rows in %s, want %d: %v", len(got), list, n, got)
			}
		}
		label, err := f.erasure().Run(f.ctx, markedEmail, m.id)
		must(t, err)
		text, document = export(label)
		if events, _ := document["events"].([]any); len(events) != 4 || strings.Contains(strings.ToLower(text), mark) {
			t.Errorf("the export of the erased person is\n%s", text)
		}
		if err := models.ExportUser(f.ctx, f.db, f.catalogue, f.now, label, fullDisk{}); err == nil {
			t.Error("a full disk is no error")
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }
