package enforcement

import "tollgate/models"

// The gate's statements. A group takes two round trips: begin, lock and look up; then write and
// commit. A group that was decided on remembered records takes one: write, unless a record changed.
// Each statement takes whole arrays, so that the database plans and answers once per group and not
// once per call.
const (
	// namedPerson is the user that k names by ID or, without an ID, by email.
	namedPerson = `COALESCE(k.user_id, (SELECT u.id FROM users u WHERE u.email = k.email))`

	recordColumns = `r.id, r.user_id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id,
		r.suggestions_included, r.granted, r.included_before, r.suggestions_used, r.overage_used, r.overage_cents,
		r.overage_rate_cents, r.past_due, r.spend_limit_cents, r.member_limit, r.workspace_id, r.slack_team_id,
		r.slack_user_id, r.stripe_customer_id, r.entitled, r.organization_record_id,
		r.grants_expire_at, r.message_level, r.limit_raises`
	heldColumns = `r.units_held, r.overage_held, r.overage_cents_held, r.holds_expire_at`

	figures = `plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after,
		held_after, overage_held_after, included, overage_rate_cents, spend_limit_cents, member_limit, next_refusal`
	eventColumns = `id, user_id, email, quantity, idempotency_key, hold_id, message, ` + figures
	holdColumns  = `id, user_id, email, quantity, overage_quantity, overage_cents, idempotency_key, state, expires_at,
		created_at, record_id, message, ` + figures

	newEvent = `INTO usage_events (message, recorded_at, id, user_id, record_id, email, workspace_id, quantity, overage_quantity,
		overage_cents, idempotency_key, hold_id, occurred_at, stripe_customer_id, ` + figures + `)`
	newHold = `INTO usage_holds (message, created_at, state, id, user_id, record_id, email, quantity, overage_quantity,
		overage_cents, idempotency_key, expires_at, ` + figures + `)`

	pgPeople = `unnest($1::uuid[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS k (user_id, email, at, ord)`
	pgKeys   = `unnest($1::uuid[], $2::text[], $3::text[]) AS k (user_id, email, key)`
	pgIDs    = `unnest($1::uuid[], $2::uuid[]) AS k (user_id, id)`

	pgWanted = ` FROM ` + pgPeople + ` JOIN usage_records r ON r.user_id = ` + namedPerson + ` AND r.billing_period_end > k.at
			AND r.billing_period_start <= k.at AND r.billing_period_start > k.at - ` + models.MaxPeriodInterval

	pgLock     = `SELECT k.ord, ` + recordColumns + `, ` + heldColumns + `, r.xmin, r.daily` + pgWanted + ` ORDER BY k.ord FOR UPDATE OF r`
	pgLockFree = pgLock + ` SKIP LOCKED`
	pgThere    = `SELECT k.ord` + pgWanted

	pgLive = ` FROM usage_holds h WHERE h.user_id = r.user_id AND h.record_id = r.id AND h.state = 'open' AND h.expires_at > k.at)`
	pgPeek = `SELECT k.ord, ` + recordColumns + `,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.quantity), 0)::bigint` + pgLive + ` ELSE r.units_held END,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_quantity), 0)::bigint` + pgLive + ` ELSE r.overage_held END,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_cents), 0)::bigint` + pgLive + ` ELSE r.overage_cents_held END,
			NULL::timestamptz
		FROM ` + pgPeople + `,
		-- Without LIMIT, the planner may read all records of the month and look for the people among them, which is
		-- cheap only while the table is empty.
		LATERAL (SELECT * FROM usage_records r WHERE r.user_id = ` + namedPerson + ` AND r.billing_period_end > k.at
			AND r.billing_period_start <= k.at AND r.billing_period_start > k.at - ` + models.MaxPeriodInterval + ` LIMIT 1) r`

	pgEvents = `SELECT e.* FROM ` + pgKeys + `, LATERAL (SELECT ` + eventColumns + ` FROM usage_events
		WHERE usage_events.user_id = ` + namedPerson + ` AND idempotency_key = k.key) e`
	pgSettled = `SELECT e.* FROM ` + pgIDs + `, LATERAL (SELECT ` + eventColumns + ` FROM usage_events
		WHERE usage_events.user_id = k.user_id AND hold_id = k.id) e`
	pgHoldsByKey = `SELECT h.* FROM ` + pgKeys + `, LATERAL (SELECT ` + holdColumns + ` FROM usage_holds
		WHERE usage_holds.user_id = ` + namedPerson + ` AND idempotency_key = k.key) h`
	pgHoldsByID = `SELECT h.* FROM ` + pgIDs + `, LATERAL (SELECT ` + holdColumns + ` FROM usage_holds
		WHERE usage_holds.user_id = k.user_id AND usage_holds.id = k.id) h`

	// Several unnest calls in the list of columns advance together. In FROM, their rows would first
	// be written to a table in memory.
	pgInsertEvents = `INSERT ` + newEvent + ` SELECT FALSE` + pgNewEvents
	// pgNotifyEvents inserts events whose answers have a message.
	pgNotifyEvents = `INSERT ` + newEvent + ` SELECT TRUE` + pgNewEvents
	pgNewEvents    = `, $1::timestamptz, unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::bigint[]), unnest($5::text[]),
			unnest($6::uuid[]), unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::text[]),
			unnest($11::uuid[]), unnest($12::timestamptz[]), unnest($13::text[]), unnest($14::text[]),
			unnest($15::timestamptz[]), unnest($16::timestamptz[]), unnest($17::bigint[]), unnest($18::bigint[]),
			unnest($19::bigint[]), unnest($20::bigint[]), unnest($21::bigint[]), unnest($22::bigint[]),
			unnest($23::bigint[]), unnest($24::bigint[]), unnest($25::bigint[]), unnest($26::text[])`

	pgInsertHolds = `INSERT ` + newHold + `
		SELECT unnest($24::boolean[]), $1::timestamptz, 'open', unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::bigint[]), unnest($5::text[]),
			unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::text[]), unnest($10::timestamptz[]),
			unnest($11::text[]), unnest($12::timestamptz[]), unnest($13::timestamptz[]), unnest($14::bigint[]),
			unnest($15::bigint[]), unnest($16::bigint[]), unnest($17::bigint[]), unnest($18::bigint[]),
			unnest($19::bigint[]), unnest($20::bigint[]), unnest($21::bigint[]), unnest($22::bigint[]), unnest($23::text[])`

	pgCloseHolds = `UPDATE usage_holds h SET state = k.state
		FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS k (user_id, id, state)
		WHERE h.user_id = k.user_id AND h.id = k.id`

	pgUpdate = `UPDATE usage_records r SET suggestions_used = k.used, overage_used = k.overage, overage_cents = k.cents,
			units_held = k.held, overage_held = k.overage_held, overage_cents_held = k.cents_held,
			holds_expire_at = k.expire, daily = k.daily
		FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
				$8::bigint[], $9::timestamptz[], $10::text[])
			AS k (user_id, id, used, overage, cents, held, overage_held, cents_held, expire, daily)
		WHERE r.user_id = k.user_id AND r.id = k.id`

	pgNotify = `UPDATE usage_records r SET message_level = k.level
		FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS k (user_id, id, level)
		WHERE r.user_id = k.user_id AND r.id = k.id`

	newNotice = `INTO notices (id, subject, subject_kind, kind, period_start, threshold, raises, facts, state,
		created_at, due_at, expires_at)`

	pgNotices = `INSERT ` + newNotice + `
		SELECT unnest($1::uuid[]), unnest($2::uuid[]), 'user', unnest($3::text[]), unnest($4::timestamptz[]), unnest($5::bigint[]),
			unnest($6::bigint[]), unnest($7::text[]), unnest($8::text[]), $9::timestamptz, $9::timestamptz, unnest($10::timestamptz[])
		ON CONFLICT DO NOTHING`

	// models.PastUsageCache caches the sums of ended periods until the workspace's version changes.
	pgLate = `INSERT INTO usage_versions (workspace_id, version)
		SELECT DISTINCT r.present_workspace_id, 1 FROM unnest($1::uuid[], $2::bigint[]) AS k (user_id, id)
			JOIN usage_records r ON r.user_id = k.user_id AND r.id = k.id
		WHERE r.present_workspace_id IS NOT NULL ORDER BY 1
		ON CONFLICT (workspace_id) DO UPDATE SET version = usage_versions.version + 1`

	// A row's xmin is the transaction that wrote this version of the row, so it differs after any
	// change. Unless every row is as remembered, the function raises a serialization failure, which
	// undoes the whole transaction.
	// Source: https://www.postgresql.org/docs/current/ddl-system-columns.html
	pgMove = `WITH moved AS (
			UPDATE usage_records r SET suggestions_used = k.used, overage_used = k.overage, overage_cents = k.cents,
				daily = k.daily
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::xid[])
				AS k (user_id, id, used, overage, cents, daily, version)
			WHERE r.user_id = k.user_id AND r.id = k.id AND r.xmin = k.version RETURNING 1)
		SELECT tollgate_moved(count(*), $8::bigint) FROM moved`

	pgSpends = `SELECT id, overage_cents, overage_cents_held, spend_limit_cents, holds_expire_at FROM organization_records
		WHERE id = ANY ($1::bigint[])`

	// The last statement of a transaction, because all of an organization's members write the same
	// row. The amounts add up in any order, so the row needs no comparison with what was read. It
	// fails like pgMove if the organization has reached its limit in the meantime.
	pgSpend = `WITH spent AS (
			UPDATE organization_records o SET overage_cents = o.overage_cents + k.cents, overage_cents_held = o.overage_cents_held + k.held,
				holds_expire_at = LEAST(o.holds_expire_at, k.expire)
			FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[]) AS k (id, cents, held, limited, expire)
			WHERE o.id = k.id AND (k.limited = 0 OR o.spend_limit_cents IS NULL
				OR o.overage_cents + o.overage_cents_held + k.cents + k.held <= o.spend_limit_cents) RETURNING 1)
		SELECT tollgate_moved(count(*), $6::bigint) FROM spent`
)

var pgStatements = map[string]string{
	"pruned_before": "SELECT pruned_before FROM retention WHERE id = 1",
	"begin":         "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK",
	"lock": pgLock, "lock_free": pgLockFree, "there": pgThere, "peek": pgPeek,
	"events": pgEvents, "settled": pgSettled, "holds_by_id": pgHoldsByID, "holds_by_key": pgHoldsByKey,
	"insert_events": pgInsertEvents, "notify_events": pgNotifyEvents, "insert_holds": pgInsertHolds, "close_holds": pgCloseHolds,
	"update": pgUpdate, "notify": pgNotify, "notices": pgNotices, "late": pgLate,
	"move": pgMove, "spends": pgSpends, "spend": pgSpend, "moment": "SELECT pg_current_xact_id()::xid",
}
