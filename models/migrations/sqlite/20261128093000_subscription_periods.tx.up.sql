-- Every billing period that Stripe showed for a subscription, not only the current one. said_at is when Stripe showed it, learned_at
-- when it was stored or last changed here.
CREATE TABLE subscription_periods (
    subscription_id text NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    stripe_customer_id text NOT NULL,
    period_start timestamp NOT NULL,
    period_end timestamp NOT NULL,
    said_at timestamp NOT NULL,
    learned_at timestamp NOT NULL,
    PRIMARY KEY (subscription_id, period_start),
    CHECK (period_end > period_start)
);
CREATE INDEX subscription_periods_customer ON subscription_periods (stripe_customer_id, period_start);
INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
    SELECT id, stripe_customer_id, current_period_start, current_period_end, updated_at, updated_at FROM subscriptions
    WHERE stripe_customer_id IS NOT NULL AND current_period_end > current_period_start;

-- The current period is stored whoever writes it.
CREATE TRIGGER subscriptions_period_inserted AFTER INSERT ON subscriptions
    WHEN NEW.stripe_customer_id IS NOT NULL AND NEW.current_period_end > NEW.current_period_start BEGIN
    INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
        VALUES (NEW.id, NEW.stripe_customer_id, NEW.current_period_start, NEW.current_period_end, NEW.updated_at, NEW.updated_at);
END;
CREATE TRIGGER subscriptions_period_updated AFTER UPDATE OF stripe_customer_id, current_period_start, current_period_end ON subscriptions
    WHEN NEW.stripe_customer_id IS NOT NULL AND NEW.current_period_end > NEW.current_period_start BEGIN
    INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
        VALUES (NEW.id, NEW.stripe_customer_id, NEW.current_period_start, NEW.current_period_end, NEW.updated_at, NEW.updated_at)
        ON CONFLICT (subscription_id, period_start) DO UPDATE SET stripe_customer_id = excluded.stripe_customer_id,
            period_end = excluded.period_end, said_at = excluded.said_at, learned_at = excluded.learned_at
        WHERE period_end <> excluded.period_end OR stripe_customer_id <> excluded.stripe_customer_id;
END;

-- The people whose records are brought up to date soon, since something about their subscription became known.
CREATE TABLE records_due (
    user_id text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    due_at timestamp NOT NULL
);
CREATE INDEX records_due_due_at ON records_due (due_at);

-- What was used in the period and is in a report of another period: reason is 'learned_late' or 'no_minute'.
ALTER TABLE stripe_totals ADD COLUMN misplaced integer NOT NULL DEFAULT 0;
ALTER TABLE stripe_totals ADD COLUMN reason text NOT NULL DEFAULT '';
-- A report whose events' period has no free minute has the first free one of the following period.
ALTER TABLE stripe_reports ADD COLUMN no_minute boolean NOT NULL DEFAULT false;

-- Overage of events that moved to this record or away from it, since a billing period became known late. It stays billed.
ALTER TABLE usage_records ADD COLUMN overage_moved_in integer NOT NULL DEFAULT 0;
ALTER TABLE usage_records ADD COLUMN overage_moved_out integer NOT NULL DEFAULT 0;
