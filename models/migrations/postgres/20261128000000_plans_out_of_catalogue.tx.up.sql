-- A subscription to a plan that the catalogue lacked used to leave a record of the free plan, which stayed so when the catalogue had it
-- again. Such records are prepared anew.
UPDATE usage_records SET entitled = false WHERE entitled AND plan_id = 'free'
    AND email IN (SELECT u.email FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id
        JOIN subscriptions s ON s.user_id = u.id OR s.organization_id = w.organization_id
        WHERE s.status IN ('active', 'trialing', 'past_due') AND s.plan_id <> 'free');
