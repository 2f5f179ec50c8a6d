-- Written so that it can run twice, as the first one.
-- An organization's pages sum up the records of its present members. So each record says where its person is now, wherever
-- they were when it was made; workspace_id stays what the record was last entitled by. No consume changes what the index
-- holds, so the gate's updates still touch no index.
ALTER TABLE usage_records ADD COLUMN IF NOT EXISTS present_workspace_id uuid;
UPDATE usage_records r SET present_workspace_id = u.workspace_id FROM users u
    WHERE u.email = r.email AND r.present_workspace_id IS DISTINCT FROM u.workspace_id;
CREATE INDEX IF NOT EXISTS usage_records_present ON usage_records (present_workspace_id, billing_period_start, billing_period_end);
CREATE INDEX IF NOT EXISTS users_workspace_id_email ON users (workspace_id, email);

-- The name in small letters as Go makes them, which differs from what a database does by its locale; null where the name is
-- older than this column.
ALTER TABLE users ADD COLUMN IF NOT EXISTS folded_name text COLLATE "C";

-- A workspace's version changes with what ended periods count: with late events, records made late or cut short, and people
-- with records who come or go. Sums of ended periods that were read after a version are right while it stands.
CREATE TABLE IF NOT EXISTS usage_versions (
    workspace_id uuid PRIMARY KEY,
    version bigint NOT NULL
);

CREATE OR REPLACE FUNCTION tollgate_past_changed(workspaces uuid[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO usage_versions (workspace_id, version) SELECT DISTINCT w, 1 FROM unnest(workspaces) w WHERE w IS NOT NULL ORDER BY w
    ON CONFLICT (workspace_id) DO UPDATE SET version = usage_versions.version + 1
$$;

-- The records are locked in the gate's order.
CREATE OR REPLACE FUNCTION tollgate_user_moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    there uuid;
    moved bigint := 0;
    n bigint;
BEGIN
    IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.email <> NEW.email) THEN
        UPDATE usage_records SET present_workspace_id = NULL WHERE id IN (
            SELECT id FROM usage_records WHERE email = OLD.email AND present_workspace_id IS NOT NULL ORDER BY billing_period_start FOR UPDATE);
        GET DIAGNOSTICS moved = ROW_COUNT;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        there := NEW.workspace_id;
        UPDATE usage_records SET present_workspace_id = there WHERE id IN (
            SELECT id FROM usage_records WHERE email = NEW.email AND present_workspace_id IS DISTINCT FROM there ORDER BY billing_period_start FOR UPDATE);
        GET DIAGNOSTICS n = ROW_COUNT;
        moved := moved + n;
    END IF;
    IF moved > 0 THEN
        PERFORM tollgate_past_changed(ARRAY[there, CASE WHEN TG_OP <> 'INSERT' THEN OLD.workspace_id END]);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION tollgate_record_placed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.present_workspace_id := (SELECT workspace_id FROM users WHERE email = NEW.email);
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION tollgate_records_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate_past_changed(ARRAY(SELECT DISTINCT present_workspace_id FROM made WHERE billing_period_end <= created_at));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION tollgate_record_cut() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate_past_changed(ARRAY[NEW.present_workspace_id]);
    RETURN NULL;
END $$;

-- By its name this one comes before users_entitlement, which locks some of the same records.
CREATE OR REPLACE TRIGGER users_as_members AFTER INSERT OR DELETE OR UPDATE OF email, workspace_id ON users
    FOR EACH ROW EXECUTE FUNCTION tollgate_user_moved();
CREATE OR REPLACE TRIGGER usage_records_placed BEFORE INSERT ON usage_records
    FOR EACH ROW EXECUTE FUNCTION tollgate_record_placed();
DROP TRIGGER IF EXISTS usage_records_made ON usage_records;
CREATE TRIGGER usage_records_made AFTER INSERT ON usage_records
    REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION tollgate_records_made();
CREATE OR REPLACE TRIGGER usage_records_cut AFTER UPDATE OF billing_period_end ON usage_records
    FOR EACH ROW EXECUTE FUNCTION tollgate_record_cut();
