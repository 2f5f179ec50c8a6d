-- Written so that it can run twice, as the one before.

-- A person's entitlement changed: each record of theirs that may still be current is brought up to date before it is used
-- again. An event that lies some minutes ahead makes the next period's record early, so that is not the newest one alone.
-- The hour is for clocks that differ. The lock on users is the one that the making of a record holds, so a record made
-- meanwhile is seen here or sees the change.
CREATE OR REPLACE FUNCTION tollgate_entitlement_changed(people uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = ANY (people) ORDER BY email FOR UPDATE;
    UPDATE usage_records SET entitled = false WHERE id IN (
        SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
        WHERE u.id = ANY (people) AND r.entitled AND (r.billing_period_end > now() - interval '1 hour' OR r.billing_period_start =
            (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
        ORDER BY r.email, r.billing_period_start FOR UPDATE OF r);
END $$;
