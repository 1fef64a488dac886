-- The database roles of VirtualStack. Roles belong to the whole cluster, so several databases may share them.
--   virtualstack_login      what servers and workers connect as: owns nothing and can read nothing (NOINHERIT)
--   virtualstack_tenant     the data of one tenant, by row-level security
--   virtualstack_account    one account, its memberships and sessions, by row-level security
--   virtualstack_system     the few things done across tenants, by policies of their own
--   virtualstack_queue      the job queue
--   virtualstack_simulator  the simulated hypervisor's own schema
-- Messages for the login are in English whatever the database's language, since some errors are told by their text. Only
-- a superuser may set that; a server does not start where it is not so.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['virtualstack_login', 'virtualstack_tenant', 'virtualstack_account',
                                  'virtualstack_system', 'virtualstack_queue', 'virtualstack_simulator'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I %s', wanted,
                    CASE WHEN wanted = 'virtualstack_login' THEN 'LOGIN NOINHERIT' ELSE 'NOLOGIN' END);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- Another process was faster.
        END;
        BEGIN
            IF NOT pg_has_role('virtualstack_login', wanted, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO virtualstack_login', wanted);
            END IF;
        EXCEPTION WHEN unique_violation THEN
            NULL;
        END;
    END LOOP;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'virtualstack_login' AND 'lc_messages=C' = ANY (rolconfig)) THEN
            ALTER ROLE virtualstack_login SET lc_messages = 'C';
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'let a superuser run: ALTER ROLE virtualstack_login SET lc_messages = %', quote_literal('C');
        WHEN internal_error THEN
            NULL; -- Another process was faster.
    END;
END
$$;
