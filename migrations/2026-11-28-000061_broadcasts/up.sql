-- What operators tell everybody or some, and a tenant's admins tell their tenant.

CREATE TABLE notifications.broadcasts (
    -- Whose it is: of the provider's tenant, where operators tell it to others.
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    -- Whether it is told beyond its tenant.
    platform boolean NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('INFO', 'WARNING', 'CRITICAL', 'MAINTENANCE')),
    link text NOT NULL DEFAULT '',
    audience text NOT NULL CHECK (audience IN ('ALL', 'TENANTS', 'ROLES', 'USERS')),
    -- Tenants, roles of the tenant, or members.
    audience_ids uuid[] NOT NULL DEFAULT '{}',
    -- System roles, by their keys.
    audience_roles text[] NOT NULL DEFAULT '{}',
    start_time timestamptz,
    end_time timestamptz,
    active boolean NOT NULL DEFAULT false,
    dismissible boolean NOT NULL DEFAULT true,
    require_acknowledgement boolean NOT NULL DEFAULT false,
    by_mail boolean NOT NULL DEFAULT false,
    -- Its notification's id and time, since it was first activated: the same for everybody, and for good.
    notice_id uuid,
    told_at timestamptz,
    -- When all whom it is for had a mail.
    mailed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CHECK (end_time > start_time)
);
CREATE INDEX broadcasts_listed ON notifications.broadcasts (tenant_id, platform, id);
-- Those that may be told now: old ones, and those of other tenants, cost their readers nothing.
CREATE INDEX broadcasts_live ON notifications.broadcasts (tenant_id, platform, coalesce(end_time, 'infinity')) WHERE active;
-- Whose mails are to be looked for.
CREATE INDEX broadcasts_mailed ON notifications.broadcasts (mailed_at) WHERE active AND by_mail;
CREATE UNIQUE INDEX broadcasts_notice ON notifications.broadcasts (notice_id);
CALL iam.tenant_table('notifications.broadcasts', 'SELECT, INSERT, UPDATE, DELETE');
CALL iam.system_policy('notifications.broadcasts', 'SELECT, UPDATE, DELETE');

-- What members have done with broadcasts.
CREATE TABLE notifications.broadcast_marks (
    notice_id uuid NOT NULL REFERENCES notifications.broadcasts (notice_id) ON DELETE CASCADE,
    user_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    account_id uuid NOT NULL REFERENCES iam.users,
    read_at timestamptz,
    dismissed_at timestamptz,
    PRIMARY KEY (notice_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships
);
CREATE INDEX broadcast_marks_of_member ON notifications.broadcast_marks (tenant_id, user_id);
CALL iam.account_table('notifications.broadcast_marks', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('notifications.broadcast_marks', 'SELECT, DELETE');

ALTER TABLE notifications.mails
    -- The broadcast that it tells of, once an account.
    ADD COLUMN notice_id uuid REFERENCES notifications.broadcasts (notice_id) ON DELETE CASCADE,
    ADD COLUMN account_id uuid;
CREATE UNIQUE INDEX mails_of_broadcast ON notifications.mails (notice_id, account_id);
-- Others go by their age; those of a broadcast stay as long as that, so that none is sent again.
DROP INDEX notifications.mails_by_age;
CREATE INDEX mails_by_age ON notifications.mails (created_at) WHERE notice_id IS NULL;

-- Whom a broadcast is for: each active membership of an active tenant once.
CREATE VIEW notifications.addressed WITH (security_invoker = true) AS
SELECT p.member_tenant_id AS tenant_id, p.user_id, p.account_id, p.tenant_id AS owner_id, p.id AS broadcast_id, p.platform, p.title, p.body,
    p.severity, p.link, p.start_time, p.end_time, p.active, p.dismissible, p.require_acknowledgement, p.notice_id, p.told_at
FROM (
    SELECT b.*, m.tenant_id AS member_tenant_id, m.id AS user_id, m.account_id
    FROM notifications.broadcasts b CROSS JOIN iam.memberships m
    -- Nobody but the provider tells other tenants, whatever a row says.
    WHERE b.platform AND b.tenant_id = (SELECT id FROM iam.tenants WHERE slug = 'provider') AND m.state = 'ACTIVE'
    UNION ALL
    SELECT b.*, m.tenant_id, m.id, m.account_id
    FROM notifications.broadcasts b JOIN iam.memberships m ON m.tenant_id = b.tenant_id WHERE NOT b.platform AND m.state = 'ACTIVE'
) p
JOIN iam.tenants t ON t.id = p.member_tenant_id AND t.state = 'ACTIVE'
WHERE CASE p.audience
    WHEN 'ALL' THEN true
    WHEN 'TENANTS' THEN p.member_tenant_id = ANY (p.audience_ids)
    WHEN 'USERS' THEN p.user_id = ANY (p.audience_ids)
    ELSE EXISTS (
        SELECT FROM iam.user_tenant_roles u JOIN iam.tenant_roles r ON r.tenant_id = u.tenant_id AND r.id = u.role_id
        WHERE u.tenant_id = p.member_tenant_id AND u.membership_id = p.user_id
        AND (r.id = ANY (p.audience_ids) OR r.system AND r.display_name = ANY (p.audience_roles)))
    END;
GRANT SELECT ON notifications.addressed TO virtualstack_system;

-- All that members are told: personal notifications, and broadcasts that are told now.
CREATE VIEW notifications.told WITH (security_invoker = true) AS
SELECT n.account_id, n.tenant_id, n.user_id, n.id, n.kind, n.title, n.body, n.severity, n.resource, '' AS link, n.created_at,
    n.read_at, n.dismissed_at, true AS dismissible, false AS require_acknowledgement
FROM notifications.notices n WHERE n.in_app
UNION ALL
SELECT a.account_id, a.tenant_id, a.user_id, a.notice_id, 'BROADCAST', a.title, a.body, a.severity,
    CASE WHEN a.platform THEN '' ELSE 'tenants/' || a.owner_id || '/' END || 'broadcasts/' || a.broadcast_id, a.link,
    greatest(a.told_at, a.start_time),
    k.read_at, k.dismissed_at, a.dismissible, a.require_acknowledgement
FROM notifications.addressed a
LEFT JOIN notifications.broadcast_marks k ON k.notice_id = a.notice_id AND k.user_id = a.user_id
WHERE a.active AND coalesce(a.end_time, 'infinity') > now() AND coalesce(a.start_time, '-infinity') <= now();
GRANT SELECT ON notifications.told TO virtualstack_system;

-- Wakes the watches of those who are told something else: of a tenant, or, without one, of any.
CREATE FUNCTION notifications.wake_watches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_told', written.tenant_id::text) FROM (SELECT DISTINCT tenant_id FROM changed) written;
    RETURN NULL;
END
$$;
CREATE TRIGGER wake_new AFTER INSERT ON notifications.notices
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION notifications.wake_watches();
CREATE TRIGGER wake_marked AFTER UPDATE ON notifications.notices
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION notifications.wake_watches();
CREATE TRIGGER wake_new AFTER INSERT ON notifications.broadcast_marks
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION notifications.wake_watches();
CREATE TRIGGER wake_marked AFTER UPDATE ON notifications.broadcast_marks
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION notifications.wake_watches();
CREATE FUNCTION notifications.wake_readers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_told', CASE WHEN NOT OLD.platform THEN OLD.tenant_id::text ELSE '' END);
    RETURN NULL;
END
$$;
-- A draft is told to nobody. Mails that are begun change nothing of what it says.
CREATE TRIGGER wake AFTER UPDATE OF version ON notifications.broadcasts
    FOR EACH ROW WHEN (OLD.active OR NEW.active) EXECUTE FUNCTION notifications.wake_readers();
CREATE TRIGGER wake_gone AFTER DELETE ON notifications.broadcasts
    FOR EACH ROW WHEN (OLD.active) EXECUTE FUNCTION notifications.wake_readers();
