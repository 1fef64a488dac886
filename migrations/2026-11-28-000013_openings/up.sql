-- Functions that open a transaction: each checks the access that a decision rests on and enters a role, in one statement
-- that stays prepared. They run with the rights of their caller, the login role, which can read nothing: a statement that
-- overtakes its opening fails.

GRANT USAGE ON SCHEMA iam, background_jobs TO virtualstack_login;

CREATE FUNCTION iam.enter_tenant(tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ignored text;
BEGIN
    ignored := set_config('virtualstack.tenant_id', tenant::text, true);
    ignored := set_config('role', 'virtualstack_tenant', true);
END
$$;

CREATE FUNCTION iam.enter_system() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ignored text;
BEGIN
    ignored := set_config('role', 'virtualstack_system', true);
END
$$;

-- Enters `role` with the access of a session: virtualstack_tenant, virtualstack_account or virtualstack_system.
CREATE FUNCTION iam.enter_by_session(role text, session uuid, account uuid, member uuid, tenant uuid, epoch bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ignored text;
BEGIN
    ignored := set_config('role', 'virtualstack_system', true);
    PERFORM iam.assert_access(session, account, member, tenant, epoch);
    IF role = 'virtualstack_tenant' THEN
        ignored := set_config('virtualstack.tenant_id', tenant::text, true);
    ELSIF role = 'virtualstack_account' THEN
        ignored := set_config('virtualstack.account_id', account::text, true);
    END IF;
    ignored := set_config('role', role, true);
END
$$;

-- The same with the access of an API key.
CREATE FUNCTION iam.enter_by_key(
    role text, key uuid, generation integer, version bigint, account uuid, member uuid, tenant uuid, epoch bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ignored text;
BEGIN
    ignored := set_config('role', 'virtualstack_system', true);
    PERFORM iam.assert_key(key, generation, version, account, member, tenant, epoch);
    IF role = 'virtualstack_tenant' THEN
        ignored := set_config('virtualstack.tenant_id', tenant::text, true);
    ELSIF role = 'virtualstack_account' THEN
        ignored := set_config('virtualstack.account_id', account::text, true);
    END IF;
    ignored := set_config('role', role, true);
END
$$;

-- Locks a claimed job by its fencing token, and enters its tenant, or the system's role where it has none.
CREATE FUNCTION background_jobs.enter(job uuid, token bigint, tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ignored text;
BEGIN
    ignored := set_config('role', 'virtualstack_queue', true);
    PERFORM background_jobs.fence(job, token);
    IF tenant IS NULL THEN
        ignored := set_config('role', 'virtualstack_system', true);
    ELSE
        ignored := set_config('virtualstack.tenant_id', tenant::text, true);
        ignored := set_config('role', 'virtualstack_tenant', true);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION iam.enter_tenant, iam.enter_system, iam.enter_by_session, iam.enter_by_key, background_jobs.enter FROM public;
GRANT EXECUTE ON FUNCTION iam.enter_tenant, iam.enter_system, iam.enter_by_session, iam.enter_by_key, background_jobs.enter
    TO virtualstack_login;
