package enforcement

// The same statements as for PostgreSQL. Each is prepared in three sizes (see chunks), because the
// overhead of a statement in database/sql, the driver and SQLite costs more than another row in it.
const (
	// CROSS JOIN keeps the order: first the few wanted records, then the index for each.
	liteWhere = ` FROM k CROSS JOIN usage_records r ON r.user_id = ` + namedPerson + `
		AND r.billing_period_start <= k.at AND r.billing_period_start > k.bound AND r.billing_period_end > k.at`

	liteLock = `SELECT k.i, ` + recordColumns + `, ` + heldColumns + `, r.daily` + liteWhere

	liteLive = ` FROM usage_holds h WHERE h.user_id = r.user_id AND h.record_id = r.id AND h.state = 'open' AND h.expires_at > k.at)`
	litePeek = `SELECT k.i, ` + recordColumns + `,
		CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.quantity), 0)` + liteLive + ` ELSE r.units_held END,
		CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_quantity), 0)` + liteLive + ` ELSE r.overage_held END,
		CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_cents), 0)` + liteLive + ` ELSE r.overage_cents_held END,
		NULL, ''` + liteWhere

	liteEventByKey = `SELECT e.id, e.user_id, e.email, e.quantity, e.idempotency_key, e.hold_id, e.message, ` + figures +
		` FROM k CROSS JOIN usage_events e ON e.user_id = ` + namedPerson + ` AND e.idempotency_key = k.key`
	liteSettled = `SELECT e.id, e.user_id, e.email, e.quantity, e.idempotency_key, e.hold_id, e.message, ` + figures +
		` FROM k CROSS JOIN usage_events e ON e.user_id = k.user_id AND e.hold_id = k.id`
	liteHold = `SELECT h.id, h.user_id, h.email, h.quantity, h.overage_quantity, h.overage_cents, h.idempotency_key,
		h.state, h.expires_at, h.created_at, h.record_id, h.message, ` + figures + ` FROM k CROSS JOIN usage_holds h ON h.user_id = `

	// A failed statement ends the group's transaction in any case. With OR ROLLBACK, SQLite needs
	// no statement journal to undo the statement's first rows.
	liteInsertEvent = `INSERT OR ROLLBACK ` + newEvent + ` VALUES `
	liteInsertHold  = `INSERT OR ROLLBACK ` + newHold + ` VALUES `
	liteCloseHold   = `UPDATE OR ROLLBACK usage_holds SET state = k.state
		FROM k WHERE usage_holds.user_id = k.user_id AND usage_holds.id = k.id`
	liteUpdate = `UPDATE OR ROLLBACK usage_records SET suggestions_used = k.used, overage_used = k.overage,
		overage_cents = k.cents, units_held = k.held, overage_held = k.overage_held, overage_cents_held = k.cents_held,
		holds_expire_at = k.expire, daily = k.daily
		FROM k WHERE usage_records.id = k.id AND usage_records.user_id = k.user_id`
	liteNotify = `UPDATE OR ROLLBACK usage_records SET message_level = k.level
		FROM k WHERE usage_records.id = k.id AND usage_records.user_id = k.user_id`
	liteNotice = `INSERT OR IGNORE ` + newNotice + ` VALUES `
	liteLate   = `INSERT OR ROLLBACK INTO usage_versions (workspace_id, version) SELECT DISTINCT r.present_workspace_id, 1
		FROM k CROSS JOIN usage_records r ON r.id = k.id AND r.user_id = k.user_id
		WHERE r.present_workspace_id IS NOT NULL ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1`

	liteSpends = `SELECT o.id, o.overage_cents, o.overage_cents_held, o.spend_limit_cents, o.holds_expire_at
		FROM k CROSS JOIN organization_records o ON o.id = k.id`
	liteSpend = `UPDATE OR ROLLBACK organization_records SET overage_cents = overage_cents + ?1, overage_cents_held = overage_cents_held + ?2,
			holds_expire_at = CASE WHEN ?4 IS NULL OR holds_expire_at < ?4 THEN holds_expire_at ELSE ?4 END
		WHERE id = ?5 AND (NOT ?3 OR spend_limit_cents IS NULL OR overage_cents + overage_cents_held + ?1 + ?2 <= spend_limit_cents)`
)
