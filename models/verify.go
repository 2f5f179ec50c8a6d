package models

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// Difference is a stored value that differs from the result of a recount.
type Difference struct {
	// Row is the row with the difference: "usage record 17", "usage event 0198…".
	Row string
	// Email is the person's; empty for a report.
	Email string
	// Customer is the Stripe customer of a report; empty otherwise.
	Customer string
	// Period is the row's billing period, or a report's minute.
	Period Period
	// Text says what is stored and what was counted.
	Text string
}

// String returns the difference as one line.
func (d Difference) String() string {
	whose := d.Email
	if d.Customer != "" {
		whose = "customer " + d.Customer
	}
	return fmt.Sprintf("%s of %s, %s to %s: %s", d.Row, whose, d.Period.Start.Format(time.RFC3339), d.Period.End.Format(time.RFC3339), d.Text)
}

// recount is a statement that returns the rows that may differ: ID, email, start, end, and for each
// text, what is stored and what was counted. The database computes the sums, because they may not
// fit in memory.
type recount struct {
	row   string
	texts []string // each takes stored and counted; of several, those are reported where these two differ
	query string
	lite  string // the query on SQLite, where that is another one
}

var recounts = []recount{
	// Retention adds the events that it deletes to usage_pruned and stripe_reports_pruned.
	{row: "usage record", texts: []string{
		"%[1]d used units are stored, %[2]d were counted from its events",
		"%[1]d units of overage are stored, %[2]d were counted from its events",
		"%[1]d cents of overage are stored, %[2]d were counted from its events",
	}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end,
			r.suggestions_used, COALESCE(e.units, 0) + COALESCE(p.units, 0), r.overage_used, COALESCE(e.overage, 0) + COALESCE(p.overage, 0),
			r.overage_cents, COALESCE(e.cents, 0) + COALESCE(p.cents, 0)
		FROM usage_records r LEFT JOIN usage_pruned p ON p.user_id = r.user_id AND p.record_id = r.id
			LEFT JOIN (SELECT user_id, record_id, CAST(SUM(quantity) AS bigint) AS units,
				CAST(SUM(overage_quantity) AS bigint) AS overage, CAST(SUM(overage_cents) AS bigint) AS cents
			FROM usage_events WHERE voided_at IS NULL GROUP BY user_id, record_id) e ON e.user_id = r.user_id AND e.record_id = r.id
		WHERE r.suggestions_used <> COALESCE(e.units, 0) + COALESCE(p.units, 0)
			OR r.overage_used <> COALESCE(e.overage, 0) + COALESCE(p.overage, 0)
			OR r.overage_cents <> COALESCE(e.cents, 0) + COALESCE(p.cents, 0)
		ORDER BY r.id`},
	{row: "usage record", texts: []string{
		"the sums of deleted events have %[1]d units for this record, but the record does not exist",
	}, query: `
		SELECT CAST(p.record_id AS text), COALESCE(u.email, ''), t.pruned_before, t.pruned_before, p.units, 0
		FROM usage_pruned p JOIN retention t ON t.id = 1 LEFT JOIN usage_records r ON r.user_id = p.user_id AND r.id = p.record_id
			LEFT JOIN users u ON u.id = p.user_id
		WHERE r.id IS NULL ORDER BY p.record_id`},
	{row: "usage record", texts: []string{"compared with its events, %[1]d units too many are stored on some days, and %[2]d are missing " +
		"on others"},
		query: dailyRecount(`SELECT r.user_id, r.id, CAST(d.n - 1 AS integer), CAST(d.units AS bigint)
				FROM usage_records r, string_to_table(r.daily, ',') WITH ORDINALITY AS d (units, n)`,
			`GREATEST(0, (e.occurred_at AT TIME ZONE 'UTC')::date - (r.billing_period_start AT TIME ZONE 'UTC')::date)`),
		// On SQLite, times are text in UTC that begins with the date in ten characters.
		lite: dailyRecount(`SELECT r.user_id, r.id, d.key, d.value FROM usage_records r, json_each('[' || r.daily || ']') d`,
			`MAX(0, CAST(julianday(substr(e.occurred_at, 1, 10)) - julianday(substr(r.billing_period_start, 1, 10)) AS integer))`)},
	{row: "usage record", texts: []string{
		"%[1]d units on hold are stored, %[2]d were counted from its open holds",
		"%[1]d units of overage on hold are stored, %[2]d were counted from its open holds",
		"%[1]d cents of overage on hold are stored, %[2]d were counted from its open holds",
	}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, r.units_held, COALESCE(h.units, 0),
			r.overage_held, COALESCE(h.overage, 0), r.overage_cents_held, COALESCE(h.cents, 0)
		FROM usage_records r LEFT JOIN (SELECT user_id, record_id, CAST(SUM(quantity) AS bigint) AS units,
				CAST(SUM(overage_quantity) AS bigint) AS overage, CAST(SUM(overage_cents) AS bigint) AS cents
			FROM usage_holds WHERE state = 'open' GROUP BY user_id, record_id) h ON h.user_id = r.user_id AND h.record_id = r.id
		WHERE r.units_held <> COALESCE(h.units, 0) OR r.overage_held <> COALESCE(h.overage, 0) OR r.overage_cents_held <> COALESCE(h.cents, 0)
		ORDER BY r.id`},
	{row: "usage record", texts: []string{"%[2]d units on hold expire earlier than the record says"}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, 0, CAST(SUM(h.quantity) AS bigint)
		FROM usage_holds h JOIN usage_records r ON r.user_id = h.user_id AND r.id = h.record_id
		WHERE h.state = 'open' AND (r.holds_expire_at IS NULL OR r.holds_expire_at > h.expires_at)
		GROUP BY r.user_id, r.id ORDER BY r.id`},
	{row: "usage record", texts: []string{"%[1]d granted units are stored, %[2]d were counted from its grants"}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, r.granted, COALESCE(g.units, 0)
		FROM usage_records r LEFT JOIN (SELECT user_id, record_id, CAST(SUM(quantity - taken_back) AS bigint) AS units
			FROM usage_grants GROUP BY user_id, record_id) g ON g.user_id = r.user_id AND g.record_id = r.id
		WHERE r.granted <> COALESCE(g.units, 0) ORDER BY r.id`},
	{row: "usage record", texts: []string{"%[2]d granted units expire earlier than the record says"}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, 0, CAST(SUM(g.quantity) AS bigint)
		FROM usage_grants g JOIN usage_records r ON r.user_id = g.user_id AND r.id = g.record_id
		WHERE g.ended_at IS NULL AND g.expires_at IS NOT NULL AND (r.grants_expire_at IS NULL OR r.grants_expire_at > g.expires_at)
		GROUP BY r.user_id, r.id ORDER BY r.id`},
	{row: "grant", texts: []string{"its units are in usage record %[1]d, which its person does not have"}, query: `
		SELECT CAST(g.id AS text), COALESCE(u.email, ''), g.created_at, g.created_at, g.record_id, 0
		FROM usage_grants g LEFT JOIN users u ON u.id = g.user_id LEFT JOIN usage_records r ON r.user_id = g.user_id AND r.id = g.record_id
		WHERE r.id IS NULL ORDER BY g.id`},
	{row: "usage record", texts: []string{"it overlaps usage record %[2]d of the same person"}, query: `
		SELECT CAST(id AS text), email, billing_period_start, billing_period_end, 0, next_id
		FROM (SELECT id, email, billing_period_start, billing_period_end,
				LEAD(billing_period_start) OVER later AS next_start, LEAD(id) OVER later AS next_id
			FROM usage_records WINDOW later AS (PARTITION BY user_id ORDER BY billing_period_start)) r
		WHERE next_start < billing_period_end ORDER BY id`},
	// Check what triggers mark when something changes: the newest record, and records of no ended
	// period. Records of earlier releases have no payer, and their copies of data that depends on
	// it may be outdated. The rate of a plan assigned by hand is the catalog's.
	{row: "usage record", texts: []string{
		"its copy of the person, workspace, plan or payment is out of date",
	}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, 1, 0
		FROM usage_records r JOIN (SELECT id FROM users) k ON k.id = r.user_id ` + EntitlementJoins + `
		WHERE r.entitled AND (r.billing_period_end > CURRENT_TIMESTAMP
				OR r.billing_period_start = (SELECT MAX(m.billing_period_start) FROM usage_records m WHERE m.user_id = r.user_id))
			AND (r.workspace_id IS DISTINCT FROM u.workspace_id OR r.spend_limit_cents IS DISTINCT FROM u.spend_limit_cents
				OR r.payer IS NOT NULL AND r.member_limit IS DISTINCT FROM ` + memberLimit + `
				OR r.slack_user_id IS DISTINCT FROM u.slack_user_id OR r.stripe_customer_id IS DISTINCT FROM s.stripe_customer_id
				OR r.plan_id <> COALESCE(s.plan_id, 'free')
				OR r.payer <> COALESCE(s.stripe_customer_id, 'organization:' || CAST(s.organization_id AS text), '')
				OR r.payer IS NOT NULL AND r.past_due <> COALESCE(s.status = 'past_due', FALSE)
				OR r.payer IS NOT NULL AND s.stripe_subscription_id IS NOT NULL
					AND r.overage_rate_cents <> CASE WHEN s.status = 'trialing' THEN 0 ELSE COALESCE(s.overage_rate_cents, 0) END)
		ORDER BY r.id`},
	{row: "organization record", texts: []string{
		"%[1]d cents of overage are stored, %[2]d were counted from its usage records",
		"%[1]d cents of overage on hold are stored, %[2]d were counted from its usage records",
	}, query: `
		SELECT CAST(o.id AS text), o.payer, o.billing_period_start, o.billing_period_end, o.overage_cents, COALESCE(r.cents, 0),
			o.overage_cents_held, COALESCE(r.held, 0)
		FROM organization_records o LEFT JOIN (SELECT organization_record_id, CAST(SUM(overage_cents) AS bigint) AS cents,
				CAST(SUM(overage_cents_held) AS bigint) AS held
			FROM usage_records WHERE organization_record_id IS NOT NULL GROUP BY organization_record_id) r ON r.organization_record_id = o.id
		WHERE o.overage_cents <> COALESCE(r.cents, 0) OR o.overage_cents_held <> COALESCE(r.held, 0) ORDER BY o.id`},
	{row: "usage record", texts: []string{"it must point to organization record %[2]d, but it points to %[1]d (0 means none)"}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, COALESCE(r.organization_record_id, 0), COALESCE(o.id, 0)
		FROM usage_records r LEFT JOIN organization_records o ON o.payer = r.payer AND o.counted AND o.spend_limit_cents IS NOT NULL
			AND r.billing_period_start >= o.billing_period_start AND r.billing_period_start < o.billing_period_end
		WHERE r.payer <> '' AND (o.id IS NOT NULL AND r.organization_record_id IS DISTINCT FROM o.id
			OR r.organization_record_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM organization_records p WHERE p.id = r.organization_record_id))
		ORDER BY r.id`},
	{row: "usage record", texts: []string{
		"its person does not exist",
		"its email is not the person's current email",
		"it is counted on the pages of a workspace that its person is not in",
	}, query: `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, CASE WHEN u.id IS NULL THEN 1 ELSE 0 END, 0,
			CASE WHEN r.email <> u.email THEN 1 ELSE 0 END, 0, CASE WHEN r.present_workspace_id IS DISTINCT FROM u.workspace_id THEN 1 ELSE 0 END, 0
		FROM usage_records r LEFT JOIN users u ON u.id = r.user_id
		WHERE u.id IS NULL OR r.email <> u.email OR r.present_workspace_id IS DISTINCT FROM u.workspace_id ORDER BY r.id`},
	{row: "usage event", texts: []string{"it counts in usage record %[1]d, which its person does not have"}, query: `
		SELECT CAST(e.id AS text), e.email, e.billing_period_start, e.billing_period_end, e.record_id, 0
		FROM usage_events e LEFT JOIN usage_records r ON r.user_id = e.user_id AND r.id = e.record_id WHERE r.id IS NULL ORDER BY e.id`},
	// The period in an event's figures is the one of its decision. When a period becomes known
	// late, the event moves to another record. Earlier releases did not move it: their records,
	// which have no payer, can end before an event of their first period.
	{row: "usage event", texts: []string{"it counts in usage record %[1]d, which is another period's"}, query: `
		SELECT CAST(e.id AS text), e.email, e.billing_period_start, e.billing_period_end, e.record_id, 0
		FROM usage_events e JOIN usage_records r ON r.user_id = e.user_id AND r.id = e.record_id
		WHERE e.occurred_at < r.billing_period_start
			OR e.occurred_at >= r.billing_period_end AND (r.payer IS NOT NULL OR e.occurred_at >= e.billing_period_end) ORDER BY e.id`},
	{row: "hold", texts: []string{"its units are in usage record %[1]d, which its person does not have"}, query: `
		SELECT CAST(h.id AS text), h.email, h.billing_period_start, h.billing_period_end, h.record_id, 0
		FROM usage_holds h LEFT JOIN usage_records r ON r.user_id = h.user_id AND r.id = h.record_id WHERE r.id IS NULL ORDER BY h.id`},
	// Holds that ended without an event are not moved.
	{row: "hold", texts: []string{"its units are in usage record %[1]d, which is another period's"}, query: `
		SELECT CAST(h.id AS text), h.email, h.billing_period_start, h.billing_period_end, h.record_id, 0
		FROM usage_holds h JOIN usage_records r ON r.user_id = h.user_id AND r.id = h.record_id
		WHERE h.state = 'open' AND (h.created_at < r.billing_period_start
			OR h.created_at >= r.billing_period_end AND (r.payer IS NOT NULL OR h.created_at >= h.billing_period_end)) ORDER BY h.id`},
	{row: "hold", texts: []string{"it is settled, so it must have %[1]d event, but %[2]d were counted"}, query: `
		SELECT CAST(h.id AS text), h.email, h.billing_period_start, h.billing_period_end, 1, COUNT(e.id)
		FROM usage_holds h LEFT JOIN usage_events e ON e.user_id = h.user_id AND e.hold_id = h.id
		WHERE h.state = 'settled' GROUP BY h.user_id, h.id HAVING COUNT(e.id) <> 1 ORDER BY h.id`},
	{row: "usage event", texts: []string{
		"it has %[1]d units and its hold has %[2]d; the hold is missing, too small, not settled or in another record",
	}, query: `
		SELECT CAST(e.id AS text), e.email, e.billing_period_start, e.billing_period_end, e.quantity, COALESCE(h.quantity, 0)
		FROM usage_events e LEFT JOIN usage_holds h ON h.user_id = e.user_id AND h.id = e.hold_id
		WHERE e.hold_id IS NOT NULL AND (h.id IS NULL OR h.state <> 'settled' OR h.record_id <> e.record_id OR e.quantity > h.quantity)
		ORDER BY e.id`},
	{row: "usage event", texts: []string{
		"it has %[1]d units and its void has %[2]d; the void is missing, or its units or overage differ",
	}, query: `
		SELECT CAST(e.id AS text), e.email, e.billing_period_start, e.billing_period_end, e.quantity, COALESCE(v.quantity, 0)
		FROM usage_events e LEFT JOIN usage_voids v ON v.user_id = e.user_id AND v.event_id = e.id
		WHERE e.voided_at IS NOT NULL AND (v.event_id IS NULL OR v.quantity <> e.quantity OR v.overage_quantity <> e.overage_quantity
			OR v.overage_cents <> e.overage_cents) ORDER BY e.id`},
	{row: "void", texts: []string{"its event with %[1]d units does not exist or is not voided"}, query: `
		SELECT CAST(v.event_id AS text), v.email, v.billing_period_start, v.billing_period_end, v.quantity, 0
		FROM usage_voids v LEFT JOIN usage_events e ON e.user_id = v.user_id AND e.id = v.event_id AND e.voided_at IS NOT NULL
		WHERE e.id IS NULL ORDER BY v.event_id`},
	{row: "void", texts: []string{"its state does not match its credit note or its next attempt"}, query: `
		SELECT CAST(v.event_id AS text), v.email, v.billing_period_start, v.billing_period_end, v.quantity, 0
		FROM usage_voids v WHERE (v.state = 'credited') <> (v.credit_note_id IS NOT NULL)
			OR v.state = 'waiting' AND v.next_attempt_at IS NULL
			OR v.state IN ('not_reported', 'credited', 'not_billed') AND v.next_attempt_at IS NOT NULL
		ORDER BY v.event_id`},
	{row: "void", texts: []string{"the report that takes back its %[1]d units does not exist or is another customer's"}, query: `
		SELECT CAST(v.event_id AS text), v.email, v.billing_period_start, v.billing_period_end, v.overage_quantity, 0
		FROM usage_voids v LEFT JOIN usage_events e ON e.user_id = v.user_id AND e.id = v.event_id
			LEFT JOIN stripe_reports s ON s.id = v.stripe_report_id AND s.counts = 'void'
		WHERE v.state = 'reported' AND v.stripe_report_id IS NULL
			OR v.stripe_report_id IS NOT NULL AND (s.id IS NULL OR e.stripe_customer_id IS NULL OR s.stripe_customer_id <> e.stripe_customer_id)
		ORDER BY v.event_id`},
	// The events of a report that never arrived are in the report that replaces it. A report of an
	// earlier release is the sum of all units of its events, and a later one the sum of the billed
	// units. A negative report has the units of a void.
	{row: "report", texts: []string{"%[1]d units are stored, %[2]d were counted from its events"}, query: `
		SELECT CAST(s.id AS text), s.stripe_customer_id, s.minute, s.minute, s.value,
			COALESCE(CASE s.counts WHEN 'overage' THEN e.overage WHEN 'void' THEN -v.overage ELSE e.units END, 0) + COALESCE(p.units, 0)
				+ COALESCE(n.value, 0)
		FROM stripe_reports s LEFT JOIN stripe_reports n ON n.id = s.replaced_by
			LEFT JOIN stripe_reports_pruned p ON p.report_id = s.id LEFT JOIN (SELECT stripe_report_id,
				CAST(SUM(quantity) AS bigint) AS units, CAST(SUM(overage_quantity) AS bigint) AS overage FROM usage_events
			WHERE stripe_report_id IS NOT NULL GROUP BY stripe_report_id) e ON e.stripe_report_id = s.id
			LEFT JOIN (SELECT stripe_report_id, CAST(SUM(overage_quantity) AS bigint) AS overage FROM usage_voids
			WHERE stripe_report_id IS NOT NULL GROUP BY stripe_report_id) v ON v.stripe_report_id = s.id
		WHERE s.value <> COALESCE(CASE s.counts WHEN 'overage' THEN e.overage WHEN 'void' THEN -v.overage ELSE e.units END, 0)
			+ COALESCE(p.units, 0) + COALESCE(n.value, 0) ORDER BY s.id`},
	{row: "report", texts: []string{"%[1]d units of its deleted events are stored, but the report does not exist"}, query: `
		SELECT CAST(p.report_id AS text), 'unknown', t.pruned_before, t.pruned_before, p.units, 0
		FROM stripe_reports_pruned p JOIN retention t ON t.id = 1 LEFT JOIN stripe_reports s ON s.id = p.report_id
		WHERE s.id IS NULL ORDER BY p.report_id`},
	{row: "usage event", texts: []string{"its %[1]d units went into a report that does not exist or is another customer's"}, query: `
		SELECT CAST(e.id AS text), e.email, e.billing_period_start, e.billing_period_end, e.quantity, 0
		FROM usage_events e LEFT JOIN stripe_reports s ON s.id = e.stripe_report_id
		WHERE e.stripe_report_id IS NOT NULL AND (s.id IS NULL OR e.stripe_customer_id IS NULL OR s.stripe_customer_id <> e.stripe_customer_id)
		ORDER BY e.id`},
}

// dailyRecount returns the statement that compares each record's units by day. stored selects the
// stored ones, named r, as user, record, day and units. day is the day of the event e. The days of
// deleted events are not known, so they count as one day of their own, -1, and must make up for what
// the other days have beyond their events.
func dailyRecount(stored, day string) string {
	const more, missing = `CAST(SUM(CASE WHEN d.units > 0 OR d.day < 0 THEN d.units ELSE 0 END) AS bigint)`,
		`CAST(SUM(CASE WHEN d.units < 0 AND d.day >= 0 THEN -d.units ELSE 0 END) AS bigint)`
	return `
		SELECT CAST(r.id AS text), r.email, r.billing_period_start, r.billing_period_end, ` + more + `, ` + missing + `
		FROM (SELECT user_id, record_id, day, SUM(units) AS units FROM (
				SELECT e.user_id, e.record_id, ` + day + ` AS day, -SUM(e.quantity) AS units
				FROM usage_events e JOIN usage_records r ON r.user_id = e.user_id AND r.id = e.record_id WHERE e.voided_at IS NULL GROUP BY 1, 2, 3
				UNION ALL ` + stored + `
				UNION ALL SELECT user_id, record_id, -1, -units FROM usage_pruned) u
			GROUP BY user_id, record_id, day HAVING SUM(units) <> 0) d
		JOIN usage_records r ON r.user_id = d.user_id AND r.id = d.record_id GROUP BY r.user_id, r.id
		HAVING ` + more + ` <> 0 OR ` + missing + ` <> 0 ORDER BY r.id`
}

// Counted is the number of events that Recount counted.
type Counted struct {
	Events int64
	// Newest is when the newest event was recorded; zero without events.
	Newest time.Time
	// Deleted is the number of events that retention deleted. Their sums were used instead.
	Deleted int64
}

// String returns the numbers of events as one line.
func (c Counted) String() string {
	text := fmt.Sprintf("%d events counted", c.Events)
	if c.Events == 1 {
		text = "1 event counted, recorded at " + c.Newest.Format(time.RFC3339Nano)
	} else if c.Events > 1 {
		text += ", the newest recorded at " + c.Newest.Format(time.RFC3339Nano)
	}
	if c.Deleted > 0 {
		text += fmt.Sprintf("; deleted events, counted from their stored sums: %d", c.Deleted)
	}
	return text
}

// Verify is Recount for callers that need only the differences.
func Verify(ctx context.Context, db *DB, report func(Difference)) error {
	_, err := Recount(ctx, db, report)
	return err
}

// Recount counts every usage record again from its events and holds, and every report from its
// events. It calls report for each difference, and returns the number of events. It reads a
// consistent snapshot, so a server may run at the same time. The ledger may be larger than memory.
func Recount(ctx context.Context, db *DB, report func(Difference)) (counted Counted, err error) {
	// Read-only also means that a transaction on SQLite does not take the write lock.
	opts := &sql.TxOptions{ReadOnly: true}
	if db.Postgres {
		opts.Isolation = sql.LevelRepeatableRead
	}
	err = db.RunInTx(ctx, opts, func(ctx context.Context, tx bun.Tx) error {
		var newest sql.NullString
		query := `SELECT COUNT(*), CAST(MAX(recorded_at) AS text) FROM usage_events`
		if db.Postgres { // whatever DateStyle says
			query = `SELECT COUNT(*), to_char(MAX(recorded_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00') FROM usage_events`
		}
		if err := tx.QueryRowContext(ctx, query).Scan(&counted.Events, &newest); err != nil {
			return err
		}
		if newest.Valid {
			at, err := time.Parse("2006-01-02 15:04:05.999999999Z07:00", newest.String)
			if err != nil {
				return err
			}
			counted.Newest = at.UTC()
		}
		if err := tx.NewSelect().Model((*UsagePruned)(nil)).ColumnExpr("CAST(COALESCE(SUM(events), 0) AS bigint)").
			Scan(ctx, &counted.Deleted); err != nil {
			return err
		}
		for _, r := range recounts {
			if !db.Postgres && r.lite != "" {
				r.query = r.lite
			}
			if err := r.run(ctx, tx, report); err != nil {
				return fmt.Errorf("%s: %w", r.row, err)
			}
		}
		return nil
	})
	if err != nil {
		return Counted{}, fmt.Errorf("verify: %w", err)
	}
	return counted, nil
}

func (r *recount) run(ctx context.Context, tx bun.Tx, report func(Difference)) error {
	rows, err := tx.QueryContext(ctx, r.query)
	if err != nil {
		return err
	}
	defer rows.Close()
	figures := make([]int64, 2*len(r.texts))
	var id string
	var d Difference
	columns := []any{&id, &d.Email, &d.Period.Start, &d.Period.End}
	for i := range figures {
		columns = append(columns, &figures[i])
	}
	for rows.Next() {
		d = Difference{}
		if err := rows.Scan(columns...); err != nil {
			return err
		}
		d.Row = r.row + " " + id
		d.Period = Period{Start: d.Period.Start.UTC(), End: d.Period.End.UTC()}
		if r.row == "report" {
			d.Email, d.Customer = "", d.Email
			d.Period.End = d.Period.Start.Add(time.Minute)
		}
		for i, text := range r.texts {
			stored, counted := figures[2*i], figures[2*i+1]
			d.Text = text
			if strings.Contains(text, "%") {
				d.Text = fmt.Sprintf(text, stored, counted)
			}
			if stored != counted || len(r.texts) == 1 {
				report(d)
			}
		}
	}
	return rows.Err()
}
