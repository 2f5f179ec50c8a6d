-- Every billing period that Stripe showed for a subscription, not only the current one. said_at is when Stripe showed it, learned_at
-- when it was stored or last changed here.
CREATE TABLE subscription_periods (
    subscription_id uuid NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    stripe_customer_id text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    said_at timestamptz NOT NULL,
    learned_at timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, period_start),
    CHECK (period_end > period_start)
);
CREATE INDEX subscription_periods_customer ON subscription_periods (stripe_customer_id, period_start);
INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
    SELECT id, stripe_customer_id, current_period_start, current_period_end, updated_at, updated_at FROM subscriptions
    WHERE stripe_customer_id IS NOT NULL AND current_period_end > current_period_start;

-- The current period is stored whoever writes it.
CREATE FUNCTION tollgate_period_learned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.stripe_customer_id IS NOT NULL AND NEW.current_period_end > NEW.current_period_start THEN
        INSERT INTO subscription_periods AS p (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
            VALUES (NEW.id, NEW.stripe_customer_id, NEW.current_period_start, NEW.current_period_end, NEW.updated_at, NEW.updated_at)
            ON CONFLICT (subscription_id, period_start) DO UPDATE SET stripe_customer_id = EXCLUDED.stripe_customer_id,
                period_end = EXCLUDED.period_end, said_at = EXCLUDED.said_at, learned_at = EXCLUDED.learned_at
            WHERE p.period_end <> EXCLUDED.period_end OR p.stripe_customer_id <> EXCLUDED.stripe_customer_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER subscriptions_period AFTER INSERT OR UPDATE OF stripe_customer_id, current_period_start, current_period_end ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION tollgate_period_learned();

-- The people whose records are brought up to date soon, since something about their subscription became known.
CREATE TABLE records_due (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    due_at timestamptz NOT NULL
);
CREATE INDEX records_due_due_at ON records_due (due_at);

-- What was used in the period and is in a report of another period: reason is 'learned_late' or 'no_minute'.
ALTER TABLE stripe_totals ADD COLUMN misplaced bigint NOT NULL DEFAULT 0;
ALTER TABLE stripe_totals ADD COLUMN reason text NOT NULL DEFAULT '';
-- A report whose events' period has no free minute has the first free one of the following period.
ALTER TABLE stripe_reports ADD COLUMN no_minute boolean NOT NULL DEFAULT false;

-- Overage of events that moved to this record or away from it, since a billing period became known late. It stays billed.
ALTER TABLE usage_records ADD COLUMN overage_moved_in bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_records ADD COLUMN overage_moved_out bigint NOT NULL DEFAULT 0;
