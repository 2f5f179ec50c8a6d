-- Written so that it can run twice, as the first one.
-- What shows the days of a period would count all its events, and ever more of them. So each record carries its units by
-- UTC date, from the one that its period starts on, as the gate counts them: '0,0,3' is three units on the third day.
ALTER TABLE usage_records ADD COLUMN IF NOT EXISTS daily text COLLATE "C" NOT NULL DEFAULT '';

-- The last day of each list has an event, so no list ends in a zero.
WITH counted AS (
    SELECT e.record_id, SUM(e.quantity)::bigint AS units,
        GREATEST(0, (e.occurred_at AT TIME ZONE 'UTC')::date - (r.billing_period_start AT TIME ZONE 'UTC')::date) AS day
    FROM usage_events e JOIN usage_records r ON r.id = e.record_id GROUP BY 1, 3
), written AS (
    SELECT l.record_id, string_agg(COALESCE(c.units, 0)::text, ',' ORDER BY d.day) AS daily
    FROM (SELECT record_id, max(day) AS day FROM counted GROUP BY record_id) l
    CROSS JOIN generate_series(0, l.day) AS d (day)
    LEFT JOIN counted c ON c.record_id = l.record_id AND c.day = d.day GROUP BY l.record_id
)
UPDATE usage_records r SET daily = w.daily FROM written w WHERE w.record_id = r.id;
