-- Written so that it can run twice, as the first one.

-- Who joins the organization meanwhile is not among its people yet. Joining holds a key lock on the workspace until it is
-- committed, and a workspace that joins holds one on the organization. So with these locks whoever joins is either seen
-- here or waits, and then finds the subscription.
CREATE OR REPLACE FUNCTION tollgate_subscription_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    s subscriptions;
BEGIN
    PERFORM 1 FROM organizations WHERE id IN (OLD.organization_id, NEW.organization_id) ORDER BY id FOR UPDATE;
    PERFORM 1 FROM workspaces WHERE organization_id IN (OLD.organization_id, NEW.organization_id) ORDER BY id FOR UPDATE;
    FOREACH s IN ARRAY ARRAY[OLD, NEW] LOOP
        PERFORM tollgate_entitlement_changed(ARRAY(
            SELECT s.user_id WHERE s.user_id IS NOT NULL UNION ALL
            SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id WHERE w.organization_id = s.organization_id));
    END LOOP;
    RETURN NULL;
END $$;
