-- Each event is written into every index of its table, in the transaction that somebody waits for. Its key is what makes it
-- one of a kind; nothing looks an event up by its id, which is a UUID and needs no index to be unique.
ALTER TABLE usage_events DROP CONSTRAINT IF EXISTS usage_events_pkey;

-- The gate writes upon records as it remembers them, and this undoes its transaction unless each still was as remembered.
-- The version that it returns is the one which the transaction's rows have after it.
CREATE OR REPLACE FUNCTION tollgate_moved(moved bigint, expected bigint) RETURNS xid LANGUAGE plpgsql AS $$
BEGIN
    IF moved <> expected THEN
        RAISE EXCEPTION 'tollgate: % of % usage records changed meanwhile; they are read again', expected - moved, expected
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN pg_current_xact_id()::xid;
END $$;
