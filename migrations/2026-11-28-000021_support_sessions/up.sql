-- A support session ends whenever and however the session that it was begun from does.

-- However it is ended: by its account, by a token that was used twice, by another password.
CREATE FUNCTION iam.end_support_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE iam.sessions SET ended_at = NEW.ended_at WHERE parent_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_support_sessions AFTER UPDATE OF ended_at ON iam.sessions FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION iam.end_support_sessions();

-- And by its time: nothing happens then, so it is asked for. A support session without a parent has lost it.
CREATE FUNCTION iam.goes_on(session iam.sessions) RETURNS boolean LANGUAGE sql STABLE
    RETURN session.ended_at IS NULL AND session.expires_at > now() AND (
        session.support_tenant_id IS NULL
        OR EXISTS (
            SELECT FROM iam.sessions parent
            WHERE parent.id = session.parent_id AND parent.ended_at IS NULL AND parent.expires_at > now()
        )
    );
REVOKE ALL ON FUNCTION iam.goes_on FROM public;
GRANT EXECUTE ON FUNCTION iam.goes_on TO virtualstack_system, virtualstack_account;

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
    WHERE s.id = session AND s.account_id = account AND s.ended_at IS NULL AND s.expires_at > now() AND u.state = 'ACTIVE' AND t.id = tenant
      AND (s.support_tenant_id IS NULL OR iam.goes_on(s));
    IF access IS NULL THEN
        RAISE EXCEPTION 'SESSION_ENDED' USING ERRCODE = 'VS401';
    END IF;
    PERFORM iam.assert_states(access.tenant_state, access.member_state, access.epoch = epoch);
END
$$;
