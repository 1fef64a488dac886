-- Schemas, the setting of the current tenant and account, and the helpers that make a table safe in one line.

CREATE SCHEMA iam;
CREATE SCHEMA compute;
CREATE SCHEMA background_jobs;
CREATE SCHEMA support;
CREATE SCHEMA notifications;
CREATE SCHEMA billing;
CREATE SCHEMA audit;

GRANT USAGE ON SCHEMA iam, compute, background_jobs, support, notifications, billing, audit
    TO virtualstack_tenant, virtualstack_account, virtualstack_system;
GRANT USAGE ON SCHEMA background_jobs TO virtualstack_queue;

-- What the transaction works for. Null outside of one, so that policies then let nothing through.
CREATE FUNCTION iam.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('virtualstack.tenant_id', true), '')::uuid;

CREATE FUNCTION iam.current_account() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('virtualstack.account_id', true), '')::uuid;

-- A table of class `class`, which its comment keeps and a test reads: nobody gets past row-level security, its owner included.
CREATE PROCEDURE iam.secure_table(target regclass, class text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('COMMENT ON TABLE %s IS %L', target, 'class: ' || class);
END
$$;

-- A tenant's table: the tenant role sees and writes the rows whose `key` is its tenant.
CREATE PROCEDURE iam.tenant_table(target regclass, privileges text DEFAULT 'SELECT, INSERT, UPDATE, DELETE', key text DEFAULT 'tenant_id')
LANGUAGE plpgsql AS $$
BEGIN
    CALL iam.secure_table(target, 'tenant');
    EXECUTE format('CREATE POLICY tenant ON %s TO virtualstack_tenant USING (%I = (SELECT iam.current_tenant()))', target, key);
    EXECUTE format('GRANT %s ON %s TO virtualstack_tenant', privileges, target);
END
$$;

-- An account's table: the account role sees and writes the rows whose `key` is its account.
CREATE PROCEDURE iam.account_table(target regclass, privileges text DEFAULT 'SELECT, INSERT, UPDATE, DELETE', key text DEFAULT 'account_id')
LANGUAGE plpgsql AS $$
BEGIN
    CALL iam.secure_table(target, 'account');
    CALL iam.account_policy(target, privileges, key);
END
$$;

-- Lets the account role at the rows of a table whose `key` is its account.
CREATE PROCEDURE iam.account_policy(target regclass, privileges text, key text DEFAULT 'account_id') LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE POLICY account ON %s TO virtualstack_account USING (%I = (SELECT iam.current_account()))', target, key);
    EXECUTE format('GRANT %s ON %s TO virtualstack_account', privileges, target);
END
$$;

-- A shared table: all read it, the system role writes it.
CREATE PROCEDURE iam.shared_table(target regclass) LANGUAGE plpgsql AS $$
BEGIN
    CALL iam.secure_table(target, 'shared');
    EXECUTE format('CREATE POLICY shared ON %s FOR SELECT TO virtualstack_tenant, virtualstack_account USING (true)', target);
    EXECUTE format('GRANT SELECT ON %s TO virtualstack_tenant, virtualstack_account', target);
END
$$;

-- Lets the system role at a whole table, for what is named in the store's list of purposes.
CREATE PROCEDURE iam.system_policy(target regclass, privileges text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE POLICY system ON %s TO virtualstack_system USING (true)', target);
    EXECUTE format('GRANT %s ON %s TO virtualstack_system', privileges, target);
END
$$;
