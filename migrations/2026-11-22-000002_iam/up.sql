-- Tenants, accounts, memberships, roles, sessions, signing keys, and the audit and change logs that every write appends to.

CREATE TABLE iam.tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    display_name text NOT NULL,
    state text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'SUSPENDED')),
    -- Raised by every change that can take an access away; the statement that opens a transaction compares it.
    authz_epoch bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CALL iam.tenant_table('iam.tenants', 'SELECT', 'id');
CALL iam.system_policy('iam.tenants', 'SELECT, INSERT, UPDATE');

CREATE TABLE iam.permissions (
    code text PRIMARY KEY,
    title text NOT NULL,
    description text NOT NULL,
    module text NOT NULL
);
CALL iam.shared_table('iam.permissions');
CALL iam.system_policy('iam.permissions', 'SELECT');

-- Puts a permission into the catalogue. Row-level security would stop its owner too, so it is not forced meanwhile.
CREATE PROCEDURE iam.add_permission(code text, title text, description text, module text) LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE iam.permissions NO FORCE ROW LEVEL SECURITY;
    INSERT INTO iam.permissions VALUES (code, title, description, module);
    ALTER TABLE iam.permissions FORCE ROW LEVEL SECURITY;
END
$$;

CREATE TABLE iam.users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE,
    display_name text NOT NULL,
    password_hash text NOT NULL,
    state text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'INACTIVE')),
    last_tenant_id uuid REFERENCES iam.tenants,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CALL iam.account_table('iam.users', 'SELECT (id, email, display_name, state, created_at, updated_at), UPDATE (display_name, updated_at)', 'id');
CALL iam.system_policy('iam.users', 'SELECT, INSERT, UPDATE');

CREATE TABLE iam.memberships (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL UNIQUE,
    account_id uuid NOT NULL REFERENCES iam.users,
    state text NOT NULL CHECK (state IN ('INVITED', 'ACTIVE', 'INACTIVE')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, account_id)
);
CREATE INDEX ON iam.memberships (account_id);
CALL iam.tenant_table('iam.memberships', 'SELECT');
CALL iam.account_policy('iam.memberships', 'SELECT');
CALL iam.system_policy('iam.memberships', 'SELECT, INSERT, UPDATE');

CREATE TABLE iam.tenant_roles (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL DEFAULT '',
    -- Made from the product's list, the same in every tenant, and immutable.
    system boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, display_name)
);
CALL iam.tenant_table('iam.tenant_roles', 'SELECT');
CALL iam.system_policy('iam.tenant_roles', 'SELECT, INSERT');

CREATE TABLE iam.tenant_role_permissions (
    tenant_id uuid NOT NULL,
    role_id uuid NOT NULL,
    permission text NOT NULL REFERENCES iam.permissions,
    PRIMARY KEY (tenant_id, role_id, permission),
    FOREIGN KEY (tenant_id, role_id) REFERENCES iam.tenant_roles
);
CALL iam.tenant_table('iam.tenant_role_permissions', 'SELECT');
CALL iam.system_policy('iam.tenant_role_permissions', 'SELECT, INSERT');

CREATE TABLE iam.user_tenant_roles (
    tenant_id uuid NOT NULL,
    membership_id uuid NOT NULL,
    role_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, membership_id, role_id),
    FOREIGN KEY (tenant_id, membership_id) REFERENCES iam.memberships,
    FOREIGN KEY (tenant_id, role_id) REFERENCES iam.tenant_roles
);
CALL iam.tenant_table('iam.user_tenant_roles', 'SELECT');
CALL iam.system_policy('iam.user_tenant_roles', 'SELECT, INSERT, DELETE');

CREATE TABLE iam.sessions (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES iam.users,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX ON iam.sessions (account_id);
CALL iam.account_table('iam.sessions', 'SELECT, UPDATE (ended_at)');
CALL iam.system_policy('iam.sessions', 'SELECT, INSERT, UPDATE, DELETE');

-- Every refresh token of a session, used ones included: the second use of one ends the session.
CREATE TABLE iam.refresh_tokens (
    digest bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES iam.sessions,
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    used_from inet,
    -- A lost reply is answered once more.
    repeated boolean NOT NULL DEFAULT false
);
CREATE INDEX ON iam.refresh_tokens (session_id);
CALL iam.secure_table('iam.refresh_tokens', 'machinery');
CALL iam.system_policy('iam.refresh_tokens', 'SELECT, INSERT, UPDATE, DELETE');

CREATE TABLE iam.signing_keys (
    kid text PRIMARY KEY,
    public_key bytea NOT NULL,
    -- The private key, sealed with the master key.
    sealed_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
CALL iam.secure_table('iam.signing_keys', 'machinery');
CALL iam.system_policy('iam.signing_keys', 'SELECT, INSERT, UPDATE');

-- What a repeated request id is answered with, for 24 hours.
CREATE TABLE iam.request_ids (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    account_id uuid NOT NULL,
    request_id uuid NOT NULL,
    method text NOT NULL,
    body_digest bytea NOT NULL,
    resource text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, account_id, request_id)
);
CREATE INDEX ON iam.request_ids (created_at);
CALL iam.tenant_table('iam.request_ids', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('iam.request_ids', 'SELECT, DELETE');

-- Raises VS401 or VS403 unless the access that a decision was made for still stands. Runs in the statement that
-- opens a transaction, so that a revocation holds from the next request on whatever was cached.
CREATE FUNCTION iam.assert_access(session uuid, account uuid, membership uuid, tenant uuid, epoch bigint) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_session boolean;
    access record;
BEGIN
    SELECT true INTO found_session
    FROM iam.sessions s JOIN iam.users u ON u.id = s.account_id
    WHERE s.id = session AND s.account_id = account AND s.ended_at IS NULL AND s.expires_at > now() AND u.state = 'ACTIVE';
    IF found_session IS NULL THEN
        RAISE EXCEPTION 'SESSION_ENDED' USING ERRCODE = 'VS401';
    END IF;
    SELECT t.state AS tenant_state, t.authz_epoch, m.state AS membership_state INTO access
    FROM iam.tenants t JOIN iam.memberships m ON m.tenant_id = t.id
    WHERE t.id = tenant AND m.id = membership AND m.account_id = account;
    IF access IS NULL THEN
        RAISE EXCEPTION 'SESSION_ENDED' USING ERRCODE = 'VS401';
    ELSIF access.tenant_state <> 'ACTIVE' THEN
        RAISE EXCEPTION 'TENANT_SUSPENDED' USING ERRCODE = 'VS403';
    ELSIF access.membership_state <> 'ACTIVE' THEN
        RAISE EXCEPTION 'MEMBERSHIP_INACTIVE' USING ERRCODE = 'VS403';
    ELSIF access.authz_epoch <> epoch THEN
        RAISE EXCEPTION 'ACCESS_CHANGED' USING ERRCODE = 'VS409';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION iam.assert_access FROM public;
GRANT EXECUTE ON FUNCTION iam.assert_access TO virtualstack_system;

CREATE TABLE audit.logs (
    id uuid PRIMARY KEY,
    -- Null for what an account does outside of any tenant.
    tenant_id uuid REFERENCES iam.tenants,
    created_at timestamptz NOT NULL DEFAULT now(),
    action text NOT NULL,
    actor text NOT NULL,
    account_id uuid,
    session_id uuid,
    resource text NOT NULL,
    request_id text NOT NULL,
    client_address inet,
    fields jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON audit.logs (tenant_id, created_at DESC);
CALL iam.tenant_table('audit.logs', 'SELECT, INSERT');
CALL iam.system_policy('audit.logs', 'SELECT, INSERT');
CALL iam.account_policy('audit.logs', 'INSERT');

-- Positions follow the order of commits only for readers that stop at the oldest running transaction: hence xid.
CREATE TABLE audit.changes (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    position bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    created_at timestamptz NOT NULL DEFAULT now(),
    resource text NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    state text NOT NULL,
    operation_id uuid,
    actor text NOT NULL,
    fields jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, position)
);
CREATE INDEX ON audit.changes (tenant_id, resource, position);
CALL iam.tenant_table('audit.changes', 'SELECT, INSERT');
CALL iam.system_policy('audit.changes', 'INSERT');

CALL iam.add_permission('operation:cancel', 'Cancel operations', 'Ask operations to cancel, and delete finished ones from the list.', 'operations');
CALL iam.add_permission('operation:read', 'See operations', 'List, read and wait for long-running operations.', 'operations');
CALL iam.add_permission('platform:tenant:create', 'Create tenants', 'Create tenants and their first admin.', 'iam');
CALL iam.add_permission('platform:tenant:read', 'See all tenants', 'List and read every tenant, not only those one is a member of.', 'iam');
CALL iam.add_permission('template:read', 'See templates', 'List and read the templates that VMs can be made from.', 'compute');
CALL iam.add_permission('vm:create', 'Create VMs', 'Create virtual machines within the quota.', 'compute');
CALL iam.add_permission('vm:delete', 'Delete VMs', 'Delete virtual machines.', 'compute');
CALL iam.add_permission('vm:read', 'See VMs', 'List and read virtual machines and their events.', 'compute');
CALL iam.add_permission('vm:restart', 'Restart VMs', 'Restart virtual machines.', 'compute');
CALL iam.add_permission('vm:start', 'Start VMs', 'Power virtual machines on.', 'compute');
CALL iam.add_permission('vm:stop', 'Stop VMs', 'Power virtual machines off.', 'compute');
CALL iam.add_permission('vm:update', 'Change VMs', 'Change name, description and labels of virtual machines.', 'compute');

-- An account sees the tenants that it can enter.
CREATE POLICY account ON iam.tenants FOR SELECT TO virtualstack_account USING (state = 'ACTIVE' AND EXISTS (
    SELECT FROM iam.memberships m
    WHERE m.tenant_id = tenants.id AND m.account_id = (SELECT iam.current_account()) AND m.state <> 'INACTIVE'));
GRANT SELECT ON iam.tenants TO virtualstack_account;
