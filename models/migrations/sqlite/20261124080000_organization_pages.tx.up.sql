-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- An organization's pages sum up the records of its present members. So each record says where its person is now, wherever
-- they were when it was made; workspace_id stays what the record was last entitled by. No consume changes what the index holds.
ALTER TABLE usage_records ADD COLUMN present_workspace_id text;
UPDATE usage_records SET present_workspace_id = (SELECT u.workspace_id FROM users u WHERE u.email = usage_records.email);
CREATE INDEX usage_records_present ON usage_records (present_workspace_id, billing_period_start, billing_period_end);
CREATE INDEX users_workspace_id_email ON users (workspace_id, email);

-- The name in small letters as Go makes them, which SQLite does to ASCII alone; null where the name is older than this column.
ALTER TABLE users ADD COLUMN folded_name text;

-- A workspace's version changes with what ended periods count: with late events, records made late or cut short, and people
-- with records who come or go. Sums of ended periods that were read after a version are right while it stands.
CREATE TABLE usage_versions (
    workspace_id text NOT NULL PRIMARY KEY,
    version integer NOT NULL
);

CREATE TRIGGER users_come AFTER INSERT ON users WHEN EXISTS (SELECT 1 FROM usage_records r WHERE r.email = NEW.email) BEGIN
    UPDATE usage_records SET present_workspace_id = NEW.workspace_id WHERE email = NEW.email;
    INSERT INTO usage_versions (workspace_id, version) SELECT NEW.workspace_id, 1 WHERE NEW.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER users_move AFTER UPDATE OF email, workspace_id ON users WHEN (OLD.email <> NEW.email OR OLD.workspace_id IS NOT NEW.workspace_id)
    AND EXISTS (SELECT 1 FROM usage_records r WHERE r.email IN (OLD.email, NEW.email)) BEGIN
    UPDATE usage_records SET present_workspace_id = NULL WHERE email = OLD.email;
    UPDATE usage_records SET present_workspace_id = NEW.workspace_id WHERE email = NEW.email;
    INSERT INTO usage_versions (workspace_id, version) SELECT OLD.workspace_id, 1 WHERE OLD.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
    INSERT INTO usage_versions (workspace_id, version) SELECT NEW.workspace_id, 1 WHERE NEW.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER users_go AFTER DELETE ON users WHEN EXISTS (SELECT 1 FROM usage_records r WHERE r.email = OLD.email) BEGIN
    UPDATE usage_records SET present_workspace_id = NULL WHERE email = OLD.email;
    INSERT INTO usage_versions (workspace_id, version) SELECT OLD.workspace_id, 1 WHERE OLD.workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER usage_records_made AFTER INSERT ON usage_records BEGIN
    UPDATE usage_records SET present_workspace_id = (SELECT u.workspace_id FROM users u WHERE u.email = NEW.email) WHERE id = NEW.id;
    INSERT INTO usage_versions (workspace_id, version) SELECT u.workspace_id, 1 FROM users u
        WHERE u.email = NEW.email AND u.workspace_id IS NOT NULL AND NEW.billing_period_end <= NEW.created_at
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
CREATE TRIGGER usage_records_cut AFTER UPDATE OF billing_period_end ON usage_records BEGIN
    INSERT INTO usage_versions (workspace_id, version) SELECT NEW.present_workspace_id, 1 WHERE NEW.present_workspace_id IS NOT NULL
        ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1;
END;
