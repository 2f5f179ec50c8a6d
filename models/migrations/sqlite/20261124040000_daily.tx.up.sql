-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- What shows the days of a period would count all its events, and ever more of them. So each record carries its units by
-- UTC date, from the one that its period starts on, as the gate counts them: '0,0,3' is three units on the third day.
ALTER TABLE usage_records ADD COLUMN daily text NOT NULL DEFAULT '';

-- Times are text in UTC, and the first ten characters are the date; SQLite itself would round the last half millisecond of a
-- day up to the next one. The last day of each list has an event, so no list ends in a zero.
WITH RECURSIVE counted AS (
    SELECT e.record_id, SUM(e.quantity) AS units,
        max(0, CAST(julianday(substr(e.occurred_at, 1, 10)) - julianday(substr(r.billing_period_start, 1, 10)) AS integer)) AS day
    FROM usage_events e JOIN usage_records r ON r.id = e.record_id GROUP BY 1, 3
), days AS (
    SELECT record_id, 0 AS day, max(day) AS last FROM counted GROUP BY record_id
    UNION ALL
    SELECT record_id, day + 1, last FROM days WHERE day < last
), written AS (
    SELECT d.record_id, group_concat(COALESCE(c.units, 0), ',' ORDER BY d.day) AS daily
    FROM days d LEFT JOIN counted c ON c.record_id = d.record_id AND c.day = d.day GROUP BY d.record_id
)
UPDATE usage_records SET daily = w.daily FROM written w WHERE w.record_id = usage_records.id;
