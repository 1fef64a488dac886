CREATE OR REPLACE FUNCTION iam.assert_access(session uuid, account uuid, member uuid, tenant uuid, epoch bigint) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    access record;
BEGIN
    SELECT t.state AS tenant_state, m.state AS member_state,
           CASE WHEN m.tenant_id = t.id THEN t.authz_epoch ELSE iam.epoch(t.id, m.tenant_id) END AS epoch
    INTO access
    FROM iam.sessions s JOIN iam.users u ON u.id = s.account_id
    JOIN iam.memberships m ON m.account_id = s.account_id AND m.id = member
    JOIN iam.tenants t ON t.id = coalesce(s.support_tenant_id, m.tenant_id)
    WHERE s.id = session AND s.account_id = account AND s.ended_at IS NULL AND s.expires_at > now() AND u.state = 'ACTIVE' AND t.id = tenant;
    IF access IS NULL THEN
        RAISE EXCEPTION 'SESSION_ENDED' USING ERRCODE = 'VS401';
    END IF;
    PERFORM iam.assert_states(access.tenant_state, access.member_state, access.epoch = epoch);
END
$$;
DROP FUNCTION iam.goes_on;
DROP TRIGGER end_support_sessions ON iam.sessions;
DROP FUNCTION iam.end_support_sessions;
