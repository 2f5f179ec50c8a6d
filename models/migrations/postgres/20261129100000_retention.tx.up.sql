-- What retention deletes stays in sums, in tables of their own: a usage record is written at each
-- decision and does not get wider, and the sums stay even if an earlier release deletes the record.
CREATE TABLE IF NOT EXISTS usage_pruned (
    user_id uuid NOT NULL,
    record_id bigint NOT NULL,
    events bigint NOT NULL CHECK (events > 0),
    units bigint NOT NULL CHECK (units >= 0),
    overage bigint NOT NULL CHECK (overage BETWEEN 0 AND units),
    cents bigint NOT NULL CHECK (cents >= 0),
    PRIMARY KEY (user_id, record_id)
);

CREATE TABLE IF NOT EXISTS stripe_reports_pruned (
    report_id uuid NOT NULL PRIMARY KEY,
    units bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS retention (
    id integer NOT NULL PRIMARY KEY CHECK (id = 1),
    pruned_before timestamptz NOT NULL
);
