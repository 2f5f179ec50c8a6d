-- Usage belongs to a user, and each unit is included or overage from its decision on. The three usage tables are written again.
-- Units on hold get a new column name, so that no statement of an earlier release can change a counter without the others.
LOCK TABLE users, usage_records, usage_events, usage_holds IN ACCESS EXCLUSIVE MODE;

INSERT INTO users (id, email, role, created_at)
    SELECT gen_random_uuid(), k.email, 'member', MIN(k.created_at)
    FROM (SELECT email, created_at FROM usage_records UNION ALL SELECT email, recorded_at FROM usage_events
        UNION ALL SELECT email, created_at FROM usage_holds) k
    GROUP BY k.email ON CONFLICT (email) DO NOTHING;

-- The last 62 bits of a hold's ID are those of its user's, so that a call that gives only the hold names the user too.
CREATE INDEX users_hold_tail ON users (substr(id::text, 20) COLLATE "C");

-- One person, one billing period. The counters are units and cents; the columns from payer on repeat what the decision needs of the
-- person, the payer and the plan, and are current while entitled is true. Free room on each page lets an update stay on its page.
-- email is the person's current address. It is unique with the period, but no key: the tables can be partitioned by user_id.
CREATE SEQUENCE usage_record_ids;
CREATE TABLE usage_records_new (
    id bigint NOT NULL DEFAULT nextval('usage_record_ids'),
    user_id uuid NOT NULL,
    email text COLLATE "C" NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    plan_id text NOT NULL,
    suggestions_included bigint NOT NULL CHECK (suggestions_included >= 0),
    granted bigint NOT NULL DEFAULT 0 CHECK (granted >= 0),
    suggestions_used bigint NOT NULL DEFAULT 0 CHECK (suggestions_used >= 0),
    overage_used bigint NOT NULL DEFAULT 0 CHECK (overage_used BETWEEN 0 AND suggestions_used),
    overage_cents bigint NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    units_held bigint NOT NULL DEFAULT 0 CHECK (units_held >= 0),
    overage_held bigint NOT NULL DEFAULT 0 CHECK (overage_held BETWEEN 0 AND units_held),
    overage_cents_held bigint NOT NULL DEFAULT 0 CHECK (overage_cents_held >= 0),
    holds_expire_at timestamptz,
    daily text COLLATE "C" NOT NULL DEFAULT '',
    entitled boolean NOT NULL,
    payer text COLLATE "C",
    included_before bigint NOT NULL DEFAULT 0 CHECK (included_before >= 0),
    overage_rate_cents bigint NOT NULL CHECK (overage_rate_cents >= 0),
    past_due boolean NOT NULL DEFAULT false,
    spend_limit_cents bigint,
    member_limit bigint,
    workspace_id uuid,
    slack_team_id text COLLATE "C",
    slack_user_id text COLLATE "C",
    stripe_customer_id text COLLATE "C",
    stripe_meter_id text COLLATE "C",
    present_workspace_id uuid,
    created_at timestamptz NOT NULL,
    CHECK (billing_period_end > billing_period_start),
    CHECK (billing_period_end <= billing_period_start + interval '62 days')
) WITH (fillfactor = 50);

-- The ledger, append-only. An event has an idempotency key of the app's, or the hold that it settles. The columns from plan_id on are
-- the figures of the answer. record_id is the only one of its figures that can change: when a billing period becomes known late.
CREATE TABLE usage_events_new (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    record_id bigint NOT NULL,
    email text COLLATE "C" NOT NULL,
    workspace_id uuid,
    quantity bigint NOT NULL CHECK (quantity > 0),
    overage_quantity bigint NOT NULL DEFAULT 0 CHECK (overage_quantity BETWEEN 0 AND quantity),
    overage_cents bigint NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    idempotency_key text COLLATE "C",
    hold_id uuid,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    used_after bigint NOT NULL,
    overage_after bigint NOT NULL DEFAULT 0,
    overage_cents_after bigint NOT NULL DEFAULT 0,
    held_after bigint NOT NULL,
    overage_held_after bigint NOT NULL DEFAULT 0,
    included bigint NOT NULL,
    overage_rate_cents bigint NOT NULL,
    spend_limit_cents bigint,
    member_limit bigint,
    stripe_customer_id text COLLATE "C",
    stripe_reported_at timestamptz,
    stripe_report_id uuid,
    voided_at timestamptz,
    void_reason text,
    CHECK ((idempotency_key IS NULL) <> (hold_id IS NULL))
);

CREATE TABLE usage_holds_new (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    record_id bigint NOT NULL,
    email text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    overage_quantity bigint NOT NULL DEFAULT 0 CHECK (overage_quantity BETWEEN 0 AND quantity),
    overage_cents bigint NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    idempotency_key text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    used_after bigint NOT NULL,
    overage_after bigint NOT NULL DEFAULT 0,
    overage_cents_after bigint NOT NULL DEFAULT 0,
    held_after bigint NOT NULL,
    overage_held_after bigint NOT NULL DEFAULT 0,
    included bigint NOT NULL,
    overage_rate_cents bigint NOT NULL,
    spend_limit_cents bigint,
    member_limit bigint
);

-- Extra included units that an operator or an admin gave a person; usage_records.granted is their sum.
CREATE TABLE usage_grants (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    reason text NOT NULL,
    granted_by text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, id)
);

-- Overage of earlier releases is what was billed: units beyond the included ones, where there were a rate and a customer.
INSERT INTO usage_events_new (id, user_id, record_id, email, workspace_id, quantity, overage_quantity, overage_cents, idempotency_key, hold_id,
        occurred_at, recorded_at, plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after, held_after,
        included, overage_rate_cents, spend_limit_cents, stripe_customer_id, stripe_reported_at, stripe_report_id)
    SELECT e.id, u.id, e.record_id, e.email, e.workspace_id, e.quantity, o.units, o.units * e.overage_rate_cents, e.idempotency_key, e.hold_id,
        e.occurred_at, e.recorded_at, e.plan_id, e.billing_period_start, e.billing_period_end, e.used_after, o.total, o.total * e.overage_rate_cents,
        e.held_after, e.included, e.overage_rate_cents, e.spend_limit_cents, e.stripe_customer_id, e.stripe_reported_at, e.stripe_report_id
    FROM usage_events e JOIN users u ON u.email = e.email
    CROSS JOIN LATERAL (SELECT CASE WHEN e.overage_rate_cents > 0 AND e.stripe_customer_id IS NOT NULL THEN GREATEST(0, e.used_after - e.included) ELSE 0 END AS total) t
    CROSS JOIN LATERAL (SELECT t.total, LEAST(e.quantity, t.total) AS units) o;

INSERT INTO usage_holds_new (id, user_id, record_id, email, quantity, overage_quantity, overage_cents, idempotency_key, state, expires_at, created_at,
        plan_id, billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents, spend_limit_cents)
    SELECT h.id, u.id, h.record_id, h.email, h.quantity, o.units, o.units * h.overage_rate_cents, h.idempotency_key, h.state, h.expires_at, h.created_at,
        h.plan_id, h.billing_period_start, h.billing_period_end, h.used_after, h.held_after, h.included, h.overage_rate_cents, h.spend_limit_cents
    FROM usage_holds h JOIN users u ON u.email = h.email JOIN usage_records r ON r.id = h.record_id
    CROSS JOIN LATERAL (SELECT CASE WHEN h.overage_rate_cents > 0 AND r.stripe_customer_id IS NOT NULL
        THEN LEAST(h.quantity, GREATEST(0, h.used_after + h.held_after - h.included)) ELSE 0 END AS units) o;

-- A current record is prepared again before it is used, which fills in what earlier releases did not store.
INSERT INTO usage_records_new (id, user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included, suggestions_used, overage_used,
        overage_cents, units_held, overage_held, overage_cents_held, holds_expire_at, daily, entitled, overage_rate_cents, spend_limit_cents,
        workspace_id, slack_team_id, slack_user_id, stripe_customer_id, stripe_meter_id, present_workspace_id, created_at)
    SELECT r.id, u.id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id, r.suggestions_included, r.suggestions_used, COALESCE(e.units, 0),
        COALESCE(e.cents, 0), r.suggestions_held, COALESCE(h.units, 0), COALESCE(h.cents, 0), r.holds_expire_at, r.daily,
        r.entitled AND r.billing_period_end <= now() - interval '1 hour', r.overage_rate_cents, r.spend_limit_cents,
        r.workspace_id, r.slack_team_id, r.slack_user_id, r.stripe_customer_id, r.stripe_meter_id, r.present_workspace_id, r.created_at
    FROM usage_records r JOIN users u ON u.email = r.email
    LEFT JOIN (SELECT record_id, SUM(overage_quantity)::bigint AS units, SUM(overage_cents)::bigint AS cents FROM usage_events_new
        WHERE overage_quantity > 0 GROUP BY 1) e ON e.record_id = r.id
    LEFT JOIN (SELECT record_id, SUM(overage_quantity)::bigint AS units, SUM(overage_cents)::bigint AS cents FROM usage_holds_new
        WHERE state = 'open' GROUP BY 1) h ON h.record_id = r.id;
SELECT setval('usage_record_ids', COALESCE((SELECT MAX(id) FROM usage_records), 0) + 1, false);

DROP TABLE usage_holds, usage_events, usage_records;
ALTER TABLE usage_records_new RENAME TO usage_records;
ALTER TABLE usage_events_new RENAME TO usage_events;
ALTER TABLE usage_holds_new RENAME TO usage_holds;
ALTER SEQUENCE usage_record_ids OWNED BY usage_records.id;

ALTER TABLE usage_records ADD CONSTRAINT usage_records_pkey PRIMARY KEY (user_id, id),
    ADD CONSTRAINT usage_records_user_id_billing_period_start_key UNIQUE (user_id, billing_period_start),
    ADD CONSTRAINT usage_records_email_billing_period_start_key UNIQUE (email, billing_period_start);
CREATE INDEX usage_records_present ON usage_records (present_workspace_id, billing_period_start, billing_period_end);
-- An event needs no primary key: each index would be written with each event, and its idempotency key is what identifies it.
ALTER TABLE usage_events ADD CONSTRAINT usage_events_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key);
CREATE UNIQUE INDEX usage_events_user_id_hold_id ON usage_events (user_id, hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX usage_events_unsealed ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_customer_id IS NOT NULL AND overage_quantity > 0;
CREATE INDEX usage_events_stripe_report_id ON usage_events (stripe_report_id) WHERE stripe_report_id IS NOT NULL;
ALTER TABLE usage_holds ADD CONSTRAINT usage_holds_pkey PRIMARY KEY (user_id, id),
    ADD CONSTRAINT usage_holds_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key);
-- The IDs of earlier releases' holds do not name their users.
CREATE INDEX usage_holds_version_7 ON usage_holds (id) WHERE substr(id::text, 15, 1) = '7';
CREATE INDEX usage_holds_open ON usage_holds (user_id, record_id, expires_at) WHERE state = 'open';

-- Reports of earlier releases are the sums of their events' units; later ones are the sums of their overage.
ALTER TABLE stripe_reports ADD COLUMN counts text NOT NULL DEFAULT 'quantity' CHECK (counts IN ('overage', 'quantity'));
ALTER TABLE stripe_reports ALTER COLUMN counts DROP DEFAULT;

-- The unit amount of the subscription's overage item at Stripe, in cents; null until it was read. overage_problem says why nothing is
-- billed by it.
ALTER TABLE subscriptions ADD COLUMN overage_rate_cents bigint CHECK (overage_rate_cents >= 0);
ALTER TABLE subscriptions ADD COLUMN overage_problem text;

-- A person's entitlement changed: each record that may be current is prepared again before it is used. The hour is for clocks that
-- differ. Making a record takes the same lock on its user.
CREATE OR REPLACE FUNCTION tollgate_entitlement_changed(people uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = ANY (people) ORDER BY email FOR UPDATE;
    PERFORM 1 FROM usage_records r WHERE r.user_id = ANY (people) AND r.entitled AND (r.billing_period_end > now() - interval '1 hour'
        OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = r.user_id))
        ORDER BY r.email, r.billing_period_start FOR UPDATE OF r;
    UPDATE usage_records r SET entitled = false WHERE r.user_id = ANY (people) AND r.entitled AND (r.billing_period_end > now() - interval '1 hour'
        OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = r.user_id));
END $$;

CREATE OR REPLACE TRIGGER users_entitlement AFTER UPDATE OF workspace_id, slack_user_id, spend_limit_cents ON users FOR EACH ROW
    WHEN (OLD.workspace_id IS DISTINCT FROM NEW.workspace_id OR OLD.slack_user_id IS DISTINCT FROM NEW.slack_user_id
        OR OLD.spend_limit_cents IS DISTINCT FROM NEW.spend_limit_cents)
    EXECUTE FUNCTION tollgate_user_changed();

-- A person's records follow their address and workspace. The locks are taken in the gate's order.
CREATE OR REPLACE FUNCTION tollgate_user_moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    there uuid;
    moved bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM 1 FROM usage_records WHERE user_id = OLD.id ORDER BY billing_period_start FOR UPDATE;
        UPDATE usage_records SET present_workspace_id = NULL WHERE user_id = OLD.id AND present_workspace_id IS NOT NULL;
        GET DIAGNOSTICS moved = ROW_COUNT;
    ELSE
        there := NEW.workspace_id;
        PERFORM 1 FROM usage_records WHERE user_id = NEW.id ORDER BY billing_period_start FOR UPDATE;
        IF OLD.email <> NEW.email THEN
            UPDATE usage_records SET email = NEW.email WHERE user_id = NEW.id;
        END IF;
        UPDATE usage_records SET present_workspace_id = there WHERE user_id = NEW.id AND present_workspace_id IS DISTINCT FROM there;
        GET DIAGNOSTICS moved = ROW_COUNT;
    END IF;
    IF moved > 0 THEN
        PERFORM tollgate_past_changed(ARRAY[there, OLD.workspace_id]);
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER users_as_members AFTER DELETE OR UPDATE OF email, workspace_id ON users
    FOR EACH ROW EXECUTE FUNCTION tollgate_user_moved();

CREATE OR REPLACE FUNCTION tollgate_record_placed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.present_workspace_id := (SELECT workspace_id FROM users WHERE id = NEW.user_id);
    RETURN NEW;
END $$;

CREATE TRIGGER usage_records_placed BEFORE INSERT ON usage_records
    FOR EACH ROW EXECUTE FUNCTION tollgate_record_placed();
CREATE TRIGGER usage_records_made AFTER INSERT ON usage_records
    REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION tollgate_records_made();
CREATE TRIGGER usage_records_cut AFTER UPDATE OF billing_period_end ON usage_records
    FOR EACH ROW EXECUTE FUNCTION tollgate_record_cut();
