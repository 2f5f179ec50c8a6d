-- Usage belongs to a user, and each unit is included or overage from its decision on. The three usage tables are written again.
-- Units on hold get a new column name, so that no statement of an earlier release can change a counter without the others.
-- No trigger may name a table while it is missing.
DROP TRIGGER users_entitlement;
DROP TRIGGER workspaces_entitlement;
DROP TRIGGER subscriptions_inserted;
DROP TRIGGER subscriptions_deleted;
DROP TRIGGER subscriptions_updated;
DROP TRIGGER users_come;
DROP TRIGGER users_move;
DROP TRIGGER users_go;
DROP TRIGGER usage_records_made;
DROP TRIGGER usage_records_cut;

INSERT INTO users (id, email, role, created_at)
    SELECT substr(k.hex, 1, 8) || '-' || substr(k.hex, 9, 4) || '-4' || substr(k.hex, 14, 3) || '-a' || substr(k.hex, 18, 3) || '-' || substr(k.hex, 21, 12),
        k.email, 'member', k.created_at
    FROM (SELECT lower(hex(randomblob(16))) AS hex, a.email, MIN(a.created_at) AS created_at
        FROM (SELECT email, created_at FROM usage_records UNION ALL SELECT email, recorded_at FROM usage_events
            UNION ALL SELECT email, created_at FROM usage_holds) a
        WHERE a.email NOT IN (SELECT email FROM users) GROUP BY a.email) k;

-- The last 62 bits of a hold's ID are those of its user's, so that a call that gives only the hold names the user too.
CREATE INDEX users_hold_tail ON users (substr(id, 20));

-- One person, one billing period. The counters are units and cents; the columns from payer on repeat what the decision needs of the
-- person, the payer and the plan, and are current while entitled is true. email is the person's current address. SQLite stores a
-- table in the order of its integer primary key, so that one is the row's id alone.
CREATE TABLE usage_records_new (
    id integer PRIMARY KEY AUTOINCREMENT,
    user_id text NOT NULL,
    email text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    plan_id text NOT NULL,
    suggestions_included integer NOT NULL CHECK (suggestions_included >= 0),
    granted integer NOT NULL DEFAULT 0 CHECK (granted >= 0),
    suggestions_used integer NOT NULL DEFAULT 0 CHECK (suggestions_used >= 0),
    overage_used integer NOT NULL DEFAULT 0 CHECK (overage_used BETWEEN 0 AND suggestions_used),
    overage_cents integer NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    units_held integer NOT NULL DEFAULT 0 CHECK (units_held >= 0),
    overage_held integer NOT NULL DEFAULT 0 CHECK (overage_held BETWEEN 0 AND units_held),
    overage_cents_held integer NOT NULL DEFAULT 0 CHECK (overage_cents_held >= 0),
    holds_expire_at timestamp,
    daily text NOT NULL DEFAULT '',
    entitled boolean NOT NULL,
    payer text,
    included_before integer NOT NULL DEFAULT 0 CHECK (included_before >= 0),
    overage_rate_cents integer NOT NULL CHECK (overage_rate_cents >= 0),
    past_due boolean NOT NULL DEFAULT false,
    spend_limit_cents integer,
    member_limit integer,
    workspace_id text,
    slack_team_id text,
    slack_user_id text,
    stripe_customer_id text,
    stripe_meter_id text,
    present_workspace_id text,
    created_at timestamp NOT NULL,
    UNIQUE (user_id, billing_period_start),
    UNIQUE (email, billing_period_start),
    CHECK (billing_period_end > billing_period_start),
    CHECK (julianday(billing_period_end) - julianday(billing_period_start) <= 62)
);

-- The ledger, append-only. An event has an idempotency key of the app's, or the hold that it settles. The columns from plan_id on are
-- the figures of the answer. record_id is the only one of its figures that can change: when a billing period becomes known late.
CREATE TABLE usage_events_new (
    id text NOT NULL,
    user_id text NOT NULL,
    record_id integer NOT NULL,
    email text NOT NULL,
    workspace_id text,
    quantity integer NOT NULL CHECK (quantity > 0),
    overage_quantity integer NOT NULL DEFAULT 0 CHECK (overage_quantity BETWEEN 0 AND quantity),
    overage_cents integer NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    idempotency_key text,
    hold_id text,
    occurred_at timestamp NOT NULL,
    recorded_at timestamp NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    used_after integer NOT NULL,
    overage_after integer NOT NULL DEFAULT 0,
    overage_cents_after integer NOT NULL DEFAULT 0,
    held_after integer NOT NULL,
    overage_held_after integer NOT NULL DEFAULT 0,
    included integer NOT NULL,
    overage_rate_cents integer NOT NULL,
    spend_limit_cents integer,
    member_limit integer,
    stripe_customer_id text,
    stripe_reported_at timestamp,
    stripe_report_id text,
    voided_at timestamp,
    void_reason text,
    UNIQUE (user_id, idempotency_key),
    CHECK ((idempotency_key IS NULL) <> (hold_id IS NULL))
);

CREATE TABLE usage_holds_new (
    id text NOT NULL,
    user_id text NOT NULL,
    record_id integer NOT NULL,
    email text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    overage_quantity integer NOT NULL DEFAULT 0 CHECK (overage_quantity BETWEEN 0 AND quantity),
    overage_cents integer NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    idempotency_key text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'released', 'expired')),
    expires_at timestamp NOT NULL,
    created_at timestamp NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    used_after integer NOT NULL,
    overage_after integer NOT NULL DEFAULT 0,
    overage_cents_after integer NOT NULL DEFAULT 0,
    held_after integer NOT NULL,
    overage_held_after integer NOT NULL DEFAULT 0,
    included integer NOT NULL,
    overage_rate_cents integer NOT NULL,
    spend_limit_cents integer,
    member_limit integer,
    PRIMARY KEY (user_id, id),
    UNIQUE (user_id, idempotency_key)
);

-- Extra included units that an operator or an admin gave a person; usage_records.granted is their sum.
CREATE TABLE usage_grants (
    id text NOT NULL,
    user_id text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    reason text NOT NULL,
    granted_by text NOT NULL,
    expires_at timestamp,
    created_at timestamp NOT NULL,
    PRIMARY KEY (user_id, id)
);

-- Overage of earlier releases is what was billed: units beyond the included ones, where there were a rate and a customer.
INSERT INTO usage_events_new (id, user_id, record_id, email, workspace_id, quantity, overage_quantity, overage_cents, idempotency_key, hold_id,
        occurred_at, recorded_at, plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after, held_after,
        included, overage_rate_cents, spend_limit_cents, stripe_customer_id, stripe_reported_at, stripe_report_id)
    SELECT e.id, u.id, e.record_id, e.email, e.workspace_id, e.quantity, MIN(e.quantity, e.total), MIN(e.quantity, e.total) * e.overage_rate_cents,
        e.idempotency_key, e.hold_id, e.occurred_at, e.recorded_at, e.plan_id, e.billing_period_start, e.billing_period_end, e.used_after, e.total,
        e.total * e.overage_rate_cents, e.held_after, e.included, e.overage_rate_cents, e.spend_limit_cents, e.stripe_customer_id,
        e.stripe_reported_at, e.stripe_report_id
    FROM (SELECT *, CASE WHEN overage_rate_cents > 0 AND stripe_customer_id IS NOT NULL THEN MAX(0, used_after - included) ELSE 0 END AS total
        FROM usage_events) e JOIN users u ON u.email = e.email;

INSERT INTO usage_holds_new (id, user_id, record_id, email, quantity, overage_quantity, overage_cents, idempotency_key, state, expires_at, created_at,
        plan_id, billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents, spend_limit_cents)
    SELECT h.id, u.id, h.record_id, h.email, h.quantity, h.units, h.units * h.overage_rate_cents, h.idempotency_key, h.state, h.expires_at, h.created_at,
        h.plan_id, h.billing_period_start, h.billing_period_end, h.used_after, h.held_after, h.included, h.overage_rate_cents, h.spend_limit_cents
    FROM (SELECT o.*, CASE WHEN o.overage_rate_cents > 0 AND r.stripe_customer_id IS NOT NULL
            THEN MIN(o.quantity, MAX(0, o.used_after + o.held_after - o.included)) ELSE 0 END AS units
        FROM usage_holds o JOIN usage_records r ON r.id = o.record_id) h JOIN users u ON u.email = h.email;

-- A current record is prepared again before it is used, which fills in what earlier releases did not store.
INSERT INTO usage_records_new (id, user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included, suggestions_used, overage_used,
        overage_cents, units_held, overage_held, overage_cents_held, holds_expire_at, daily, entitled, overage_rate_cents, spend_limit_cents,
        workspace_id, slack_team_id, slack_user_id, stripe_customer_id, stripe_meter_id, present_workspace_id, created_at)
    SELECT r.id, u.id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id, r.suggestions_included, r.suggestions_used, COALESCE(e.units, 0),
        COALESCE(e.cents, 0), r.suggestions_held, COALESCE(h.units, 0), COALESCE(h.cents, 0), r.holds_expire_at, r.daily,
        r.entitled AND r.billing_period_end <= strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour'), r.overage_rate_cents, r.spend_limit_cents,
        r.workspace_id, r.slack_team_id, r.slack_user_id, r.stripe_customer_id, r.stripe_meter_id, r.present_workspace_id, r.created_at
    FROM usage_records r JOIN users u ON u.email = r.email
    LEFT JOIN (SELECT record_id, SUM(overage_quantity) AS units, SUM(overage_cents) AS cents FROM usage_events_new
        WHERE overage_quantity > 0 GROUP BY 1) e ON e.record_id = r.id
    LEFT JOIN (SELECT record_id, SUM(overage_quantity) AS units, SUM(overage_cents) AS cents FROM usage_holds_new
        WHERE state = 'open' GROUP BY 1) h ON h.record_id = r.id;

DROP TABLE usage_holds;
DROP TABLE usage_events;
DROP TABLE usage_records;
ALTER TABLE usage_records_new RENAME TO usage_records;
ALTER TABLE usage_events_new RENAME TO usage_events;
ALTER TABLE usage_holds_new RENAME TO usage_holds;

CREATE INDEX usage_records_present ON usage_records (present_workspace_id, billing_period_start, billing_period_end);
-- An event needs no primary key: each index would be written with each event, and its idempotency key is what identifies it.
CREATE UNIQUE INDEX usage_events_user_id_hold_id ON usage_events (user_id, hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX usage_events_unsealed ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_customer_id IS NOT NULL AND overage_quantity > 0;
CREATE INDEX usage_events_stripe_report_id ON usage_events (stripe_report_id) WHERE stripe_report_id IS NOT NULL;
-- The IDs of earlier releases' holds do not name their users.
CREATE INDEX usage_holds_version_7 ON usage_holds (id) WHERE substr(id, 15, 1) = '7';
CREATE INDEX usage_holds_open ON usage_holds (user_id, record_id, expires_at) WHERE state = 'open';

-- Reports of earlier releases are the sums of their events' units; later ones are the sums of their overage.
ALTER TABLE stripe_reports ADD COLUMN counts text NOT NULL DEFAULT 'quantity' CHECK (counts IN ('overage', 'quantity'));

-- The unit amount of the subscription's overage item at Stripe, in cents; null until it was read. overage_problem says why nothing is
-- billed by it.
ALTER TABLE subscriptions ADD COLUMN overage_rate_cents integer CHECK (overage_rate_cents >= 0);
ALTER TABLE subscriptions ADD COLUMN overage_problem text;

-- A person's entitlement changed: each record that may be current is prepared again before it is used. The hour is for clocks that
-- differ.
CREATE TRIGGER users_entitlement AFTER UPDATE OF workspace_id, slack_user_id, spend_limit_cents ON users
    WHEN OLD.workspace_id IS NOT NEW.workspace_id OR OLD.slack_user_id IS NOT NEW.slack_user_id
        OR OLD.spend_limit_cents IS NOT NEW.spend_limit_cents BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = NEW.id)
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
CREATE TRIGGER workspaces_entitlement AFTER UPDATE OF organization_id, slack_team_id ON workspaces BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.workspace_id = NEW.id)
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
CREATE TRIGGER subscriptions_inserted AFTER INSERT ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id))
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
CREATE TRIGGER subscriptions_deleted AFTER DELETE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id))
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
CREATE TRIGGER subscriptions_updated AFTER UPDATE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id))
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id))
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;

-- A person's records follow their address and workspace.
CREATE TRIGGER users_rename AFTER UPDATE OF email ON users WHEN OLD.email <> NEW.email BEGIN
    UPDATE usage_records SET email = NEW.email WHERE user_id = NEW.id;
END;
CREATE TRIGGER users_move AFTER UPDATE OF workspace_id ON users WHEN OLD.workspace_id IS NOT NEW.workspace_id
    AND EXISTS (SELECT 1 FROM usage_records r WHERE r.user_id = NEW.id) BEGIN
    UPDATE usage_records SET present_workspace_id = NEW.workspace_id WHERE user_id = NEW.id;
    INSERT INTO usage_versions (workspace_id, version) SELECT OLD.workspace_id, 1 WHERE OLD.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
    INSERT INTO usage_versions (workspace_id, version) SELECT NEW.workspace_id, 1 WHERE NEW.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER users_go AFTER DELETE ON users WHEN EXISTS (SELECT 1 FROM usage_records r WHERE r.user_id = OLD.id) BEGIN
    UPDATE usage_records SET present_workspace_id = NULL WHERE user_id = OLD.id;
    INSERT INTO usage_versions (workspace_id, version) SELECT OLD.workspace_id, 1 WHERE OLD.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER usage_records_made AFTER INSERT ON usage_records BEGIN
    UPDATE usage_records SET present_workspace_id = (SELECT u.workspace_id FROM users u WHERE u.id = NEW.user_id) WHERE id = NEW.id;
    INSERT INTO usage_versions (workspace_id, version) SELECT u.workspace_id, 1 FROM users u
        WHERE u.id = NEW.user_id AND u.workspace_id IS NOT NULL AND NEW.billing_period_end <= NEW.created_at
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER usage_records_cut AFTER UPDATE OF billing_period_end ON usage_records BEGIN
    INSERT INTO usage_versions (workspace_id, version) SELECT NEW.present_workspace_id, 1 WHERE NEW.present_workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
