-- What members are told personally, in the tenant that it happened in.

CREATE TABLE notifications.notices (
    -- Whose it is: row-level security goes by the account, and queries by the tenant of the credential as well.
    account_id uuid NOT NULL REFERENCES iam.users,
    id uuid NOT NULL,
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    user_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('OPERATION_FAILED', 'QUOTA_NEARLY_USED', 'TICKET_ANSWERED', 'INVITATION_ACCEPTED', 'KEY_EXPIRING')),
    -- What it was made of: of one thing that happened a member is told once.
    source text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('INFO', 'WARNING')),
    -- Full name of what it is about.
    resource text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    dismissed_at timestamptz,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships
);
CREATE UNIQUE INDEX notices_source ON notifications.notices (tenant_id, user_id, source);
CREATE INDEX notices_of_member ON notifications.notices (account_id, tenant_id, id);
CREATE INDEX notices_unread ON notifications.notices (account_id, tenant_id)
    WHERE read_at IS NULL AND dismissed_at IS NULL;
CREATE INDEX notices_by_age ON notifications.notices (created_at);
CALL iam.account_table('notifications.notices', 'SELECT, UPDATE');
CALL iam.system_policy('notifications.notices', 'SELECT, INSERT, DELETE');

-- Up to where the change log of a tenant was read.
CREATE TABLE notifications.cursors (
    tenant_id uuid PRIMARY KEY REFERENCES iam.tenants,
    position bigint NOT NULL
);
CALL iam.secure_table('notifications.cursors', 'provider');
CALL iam.system_policy('notifications.cursors', 'SELECT, INSERT, UPDATE, DELETE');
-- What happened before is told to nobody.
ALTER TABLE audit.change_heads NO FORCE ROW LEVEL SECURITY;
INSERT INTO notifications.cursors SELECT tenant_id, position FROM audit.change_heads;
ALTER TABLE audit.change_heads FORCE ROW LEVEL SECURITY;

GRANT SELECT ON audit.changes TO virtualstack_system;

-- Amounts of a quota that are nearly used, and were told: again only once they have fallen.
CREATE TABLE notifications.quota_marks (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    amount text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, amount)
);
CALL iam.secure_table('notifications.quota_marks', 'provider');
CALL iam.system_policy('notifications.quota_marks', 'SELECT, INSERT, DELETE');
