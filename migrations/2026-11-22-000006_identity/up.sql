-- Identity and access, complete: members with names, custom roles, API keys, invitations, password resets, support
-- sessions, and an audit log that says by which credential and with what result.

-- Tenants can be deleted, and have settings.
ALTER TABLE iam.tenants
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN purge_at timestamptz,
    -- What an undelete goes back to.
    ADD COLUMN undelete_state text CHECK (undelete_state IN ('ACTIVE', 'SUSPENDED')),
    -- Raised by each change; what the etag is made of.
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    DROP CONSTRAINT tenants_state_check,
    -- A purged tenant keeps its row for the audit log to refer to; its slug is free again.
    ADD CONSTRAINT tenants_state_check CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED', 'PURGED'));
CREATE INDEX tenants_purge_at ON iam.tenants (purge_at) WHERE purge_at IS NOT NULL;
GRANT UPDATE (display_name, settings, authz_epoch, version, updated_at) ON iam.tenants TO virtualstack_tenant;

-- An account that was invited has no password before it accepts.
ALTER TABLE iam.users ALTER COLUMN password_hash DROP NOT NULL;

-- What a tenant sees of a member: the address, and a name of its own, so that no tenant reads accounts.
ALTER TABLE iam.memberships
    ADD COLUMN email text,
    ADD COLUMN display_name text,
    -- A new account becomes active in the tenant that made it at its first login.
    ADD COLUMN activates_at_login boolean NOT NULL DEFAULT false,
    -- Deactivated while invited: to activate is to invite again, for nobody is a member who has not agreed.
    ADD COLUMN deactivated_invited boolean NOT NULL DEFAULT false,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    DROP CONSTRAINT memberships_state_check,
    -- A removed member keeps the row for what they made to refer to.
    ADD CONSTRAINT memberships_state_check CHECK (state IN ('INVITED', 'ACTIVE', 'INACTIVE', 'REMOVED'));
ALTER TABLE iam.memberships NO FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.users NO FORCE ROW LEVEL SECURITY;
UPDATE iam.memberships m SET email = u.email, display_name = u.display_name FROM iam.users u WHERE u.id = m.account_id;
ALTER TABLE iam.users FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.memberships FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.memberships ALTER COLUMN email SET NOT NULL, ALTER COLUMN display_name SET NOT NULL;
CREATE INDEX memberships_email ON iam.memberships (tenant_id, email COLLATE "und-x-icu", id);
CREATE INDEX memberships_display_name ON iam.memberships (tenant_id, display_name COLLATE "und-x-icu", id);
GRANT INSERT, UPDATE ON iam.memberships TO virtualstack_tenant;
GRANT UPDATE (display_name, updated_at, version) ON iam.memberships TO virtualstack_account;

-- An account sees the tenants that it can enter: not those that it is only invited to.
DROP POLICY account ON iam.tenants;
CREATE POLICY account ON iam.tenants FOR SELECT TO virtualstack_account USING (state = 'ACTIVE' AND EXISTS (
    SELECT FROM iam.memberships m
    WHERE m.tenant_id = tenants.id AND m.account_id = (SELECT iam.current_account()) AND m.state = 'ACTIVE'));

ALTER TABLE iam.tenant_roles ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE INDEX user_tenant_roles_role ON iam.user_tenant_roles (tenant_id, role_id);
GRANT INSERT, UPDATE, DELETE ON iam.tenant_roles TO virtualstack_tenant;
GRANT INSERT, DELETE ON iam.tenant_role_permissions TO virtualstack_tenant;
GRANT INSERT, DELETE ON iam.user_tenant_roles TO virtualstack_tenant;

-- A session may be an operator's in a tenant that is not theirs: it is good for that tenant only, and says why.
ALTER TABLE iam.sessions
    ADD COLUMN client_address inet,
    ADD COLUMN support_tenant_id uuid REFERENCES iam.tenants,
    ADD COLUMN support_reason text,
    -- The session that it was begun from, and ends with.
    ADD COLUMN parent_id uuid REFERENCES iam.sessions ON DELETE SET NULL,
    ADD CONSTRAINT sessions_support CHECK ((support_tenant_id IS NULL) = (support_reason IS NULL));

CREATE INDEX sessions_parent ON iam.sessions (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE iam.api_keys (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL UNIQUE,
    -- Whom it acts for.
    owner_id uuid NOT NULL,
    display_name text NOT NULL,
    -- The public part of the key, by which it is found.
    public_id text NOT NULL UNIQUE CHECK (public_id ~ '^[0-9A-Za-z]{16}$'),
    permissions text[] NOT NULL,
    allowed_cidrs cidr[] NOT NULL DEFAULT '{}',
    -- SHA-256 of the secret. Counted up with each new one, so that what was decided for an older one can be told.
    digest bytea NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    previous_digest bytea,
    previous_expires_at timestamptz,
    expires_at timestamptz,
    last_used_at timestamptz,
    last_used_from inet,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, owner_id) REFERENCES iam.memberships
);
CREATE INDEX api_keys_owner ON iam.api_keys (tenant_id, owner_id);
CALL iam.tenant_table('iam.api_keys');
CALL iam.system_policy('iam.api_keys', 'SELECT, UPDATE (last_used_at, last_used_from)');

CREATE TABLE iam.invitations (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    email text NOT NULL,
    -- The role that it brings; none where the member was made beforehand, and once the role is gone.
    role_id uuid,
    user_id uuid,
    state text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'ACCEPTED', 'REVOKED')),
    -- SHA-256 of the token that was mailed last. None before the mail.
    digest bytea UNIQUE,
    inviter_id uuid,
    expires_at timestamptz NOT NULL,
    sent_at timestamptz,
    accepted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, role_id) REFERENCES iam.tenant_roles,
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships,
    FOREIGN KEY (tenant_id, inviter_id) REFERENCES iam.memberships,
    CHECK (state <> 'PENDING' OR (role_id IS NULL) <> (user_id IS NULL))
);
-- One open invitation per address.
CREATE UNIQUE INDEX invitations_open ON iam.invitations (tenant_id, email) WHERE state = 'PENDING';
CREATE INDEX invitations_role ON iam.invitations (tenant_id, role_id);
CALL iam.tenant_table('iam.invitations');
CALL iam.system_policy('iam.invitations', 'SELECT, UPDATE');

CREATE TABLE iam.password_resets (
    account_id uuid PRIMARY KEY REFERENCES iam.users,
    -- SHA-256 of the token that was mailed last.
    digest bytea NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL
);
CALL iam.secure_table('iam.password_resets', 'machinery');
CALL iam.system_policy('iam.password_resets', 'SELECT, INSERT, UPDATE, DELETE');

-- By which credential, why, and with what result. Denials and failed logins are written too.
ALTER TABLE audit.logs
    ADD COLUMN credential text NOT NULL DEFAULT '',
    ADD COLUMN support_reason text,
    ADD COLUMN result text NOT NULL DEFAULT 'OK' CHECK (result IN ('OK', 'DENIED', 'FAILED')),
    -- Reason of a result that is not OK.
    ADD COLUMN reason text NOT NULL DEFAULT '';

-- What a purge of a tenant takes away.
GRANT DELETE ON iam.memberships, iam.tenant_roles, iam.tenant_role_permissions, iam.api_keys, iam.invitations
    TO virtualstack_system;
GRANT SELECT, DELETE ON audit.changes TO virtualstack_system;
CALL iam.system_policy('compute.operations', 'SELECT, DELETE');

-- Operators repeat requests too.
GRANT INSERT, UPDATE ON iam.request_ids TO virtualstack_system;

-- What a decision rests on besides the tenant's own epoch: an operator in another tenant has their roles in the
-- provider's. Both only grow, so equal sums are equal summands.
CREATE FUNCTION iam.epoch(tenant uuid, home uuid) RETURNS bigint LANGUAGE sql STABLE
    RETURN (SELECT sum(t.authz_epoch)::bigint FROM iam.tenants t WHERE t.id IN (tenant, home));

-- Raises VS401, VS403 or VS409 unless the access that a decision was made for still stands: the session has not ended,
-- the member is active in `home`, which is the tenant unless it is an operator's session in another one, and nothing
-- has changed since. Runs in the statement that opens a transaction, so a revocation holds from the next request on.
DROP FUNCTION iam.assert_access;
CREATE FUNCTION iam.assert_access(session uuid, account uuid, member uuid, tenant uuid, epoch bigint) RETURNS void
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

-- The same for an API key: it is there, as it was when the decision was made, and the secret that was used is good.
CREATE FUNCTION iam.assert_key(
    key uuid, generation integer, version bigint, account uuid, member uuid, tenant uuid, epoch bigint
) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    access record;
BEGIN
    SELECT t.state AS tenant_state, m.state AS member_state, t.authz_epoch AS epoch, k.version INTO access
    FROM iam.api_keys k
    JOIN iam.memberships m ON m.tenant_id = k.tenant_id AND m.id = k.owner_id
    JOIN iam.tenants t ON t.id = k.tenant_id
    JOIN iam.users u ON u.id = m.account_id
    WHERE k.tenant_id = tenant AND k.id = key AND k.owner_id = member AND u.id = account AND u.state = 'ACTIVE'
      AND (k.expires_at IS NULL OR k.expires_at > now())
      AND (k.generation = assert_key.generation
           OR k.generation = assert_key.generation + 1 AND k.previous_expires_at > now());
    IF access IS NULL THEN
        RAISE EXCEPTION 'KEY_INVALID' USING ERRCODE = 'VS401';
    END IF;
    PERFORM iam.assert_states(access.tenant_state, access.member_state, access.epoch = epoch AND access.version = version);
END
$$;

CREATE FUNCTION iam.assert_states(tenant_state text, member_state text, unchanged boolean) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF tenant_state = 'SUSPENDED' THEN
        RAISE EXCEPTION 'TENANT_SUSPENDED' USING ERRCODE = 'VS403';
    ELSIF tenant_state <> 'ACTIVE' THEN
        RAISE EXCEPTION 'TENANT_DELETED' USING ERRCODE = 'VS403';
    ELSIF member_state <> 'ACTIVE' THEN
        RAISE EXCEPTION 'MEMBERSHIP_INACTIVE' USING ERRCODE = 'VS403';
    ELSIF NOT unchanged THEN
        RAISE EXCEPTION 'ACCESS_CHANGED' USING ERRCODE = 'VS409';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION iam.assert_access, iam.assert_key, iam.assert_states, iam.epoch FROM public;
GRANT EXECUTE ON FUNCTION iam.assert_access, iam.assert_key, iam.assert_states, iam.epoch TO virtualstack_system;

-- Tells servers what they may have cached and should read again. The check above is the truth; this is for speed.
CREATE FUNCTION iam.notify_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_access', TG_ARGV[0] || ' ' || OLD.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER UPDATE ON iam.tenants FOR EACH ROW
    WHEN (OLD.authz_epoch <> NEW.authz_epoch) EXECUTE FUNCTION iam.notify_access('tenant');
CREATE TRIGGER notify AFTER UPDATE ON iam.sessions FOR EACH ROW
    WHEN (OLD.ended_at IS DISTINCT FROM NEW.ended_at) EXECUTE FUNCTION iam.notify_access('session');
CREATE TRIGGER notify_changed AFTER UPDATE ON iam.api_keys FOR EACH ROW
    WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION iam.notify_access('key');
CREATE TRIGGER notify_deleted AFTER DELETE ON iam.api_keys FOR EACH ROW EXECUTE FUNCTION iam.notify_access('key');

CREATE FUNCTION iam.notify_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_access', 'signing_keys');
    RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON iam.signing_keys FOR EACH STATEMENT EXECUTE FUNCTION iam.notify_keys();

CALL iam.add_permission('access:explain', 'Explain access', 'Ask why a member may or may not do something.', 'iam');
CALL iam.add_permission('api_key:create', 'Create API keys', 'Create and rotate API keys of one''s own.', 'iam');
CALL iam.add_permission('api_key:delete', 'Delete API keys', 'Delete API keys of one''s own; with user:update those of all members.', 'iam');
CALL iam.add_permission('api_key:read', 'See API keys', 'List and read API keys of one''s own; with user:read those of all members.', 'iam');
CALL iam.add_permission('api_key:update', 'Change API keys', 'Change API keys of one''s own.', 'iam');
CALL iam.add_permission('invitation:create', 'Invite people', 'Invite people by mail, and send invitations again.', 'iam');
CALL iam.add_permission('invitation:delete', 'Revoke invitations', 'Revoke open invitations.', 'iam');
CALL iam.add_permission('invitation:read', 'See invitations', 'List and read invitations.', 'iam');
CALL iam.add_permission('invitation:update', 'Change invitations', 'Send open invitations again with a new term.', 'iam');
CALL iam.add_permission('permission:assign', 'Put permissions into roles', 'Give custom roles permissions that one holds, and take them away.', 'iam');
CALL iam.add_permission('permission:read', 'See permissions', 'List the catalogue of permissions.', 'iam');
CALL iam.add_permission('platform:tenant:delete', 'Delete tenants', 'Delete tenants, undo that within their term, and purge them.', 'iam');
CALL iam.add_permission('platform:tenant:enter', 'Enter tenants', 'Work inside any tenant with the support role, with a reason.', 'iam');
CALL iam.add_permission('platform:tenant:suspend', 'Suspend tenants', 'Suspend tenants and activate them again.', 'iam');
CALL iam.add_permission('platform:tenant:update', 'Change tenants', 'Rename tenants and change their settings.', 'iam');
CALL iam.add_permission('role:assign', 'Assign roles', 'Give roles that one holds all permissions of to members, and take them away.', 'iam');
CALL iam.add_permission('role:create', 'Create roles', 'Create custom roles.', 'iam');
CALL iam.add_permission('role:delete', 'Delete roles', 'Delete custom roles that nobody holds.', 'iam');
CALL iam.add_permission('role:read', 'See roles', 'List and read roles and who holds them.', 'iam');
CALL iam.add_permission('role:update', 'Change roles', 'Change name and description of custom roles.', 'iam');
CALL iam.add_permission('session:read', 'See sessions', 'List and read the sessions of one''s own account.', 'iam');
CALL iam.add_permission('session:revoke', 'End sessions', 'End sessions of one''s own account.', 'iam');
CALL iam.add_permission('tenant:create', 'Create tenants', 'Nothing within a tenant: tenants are created by operators of the platform.', 'iam');
CALL iam.add_permission('tenant:delete', 'Delete tenants', 'Nothing within a tenant: tenants are deleted by operators of the platform.', 'iam');
CALL iam.add_permission('tenant:read', 'See the tenant', 'Read the tenant and its settings, which every member may.', 'iam');
CALL iam.add_permission('tenant:update', 'Change the tenant', 'Change display name and settings of the tenant.', 'iam');
CALL iam.add_permission('user:create', 'Add users', 'Bring people into the tenant.', 'iam');
CALL iam.add_permission('user:delete', 'Remove users', 'Take people out of the tenant; their accounts stay theirs.', 'iam');
CALL iam.add_permission('user:read', 'See users', 'List and read the members of the tenant.', 'iam');
CALL iam.add_permission('user:update', 'Change users', 'Rename, activate and deactivate members, and delete their API keys.', 'iam');
