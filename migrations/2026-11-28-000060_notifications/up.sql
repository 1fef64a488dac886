-- What members are told personally, in the tenant that it happened in.

CREATE TABLE notifications.notices (
    -- Whose it is: row-level security goes by the account, and queries by the tenant of the credential as well.
    account_id uuid NOT NULL REFERENCES iam.users,
    id uuid NOT NULL,
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    user_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('BROADCAST', 'OPERATION_FAILED', 'QUOTA_NEARLY_USED', 'TICKET_ANSWERED', 'INVITATION_ACCEPTED', 'KEY_EXPIRING')),
    -- What it was made of: of one thing that happened a member is told once.
    source text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('INFO', 'WARNING')),
    -- Full name of what it is about.
    resource text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Whether the member sees it; one that does not is kept, so that it is not told again.
    in_app boolean NOT NULL,
    read_at timestamptz,
    dismissed_at timestamptz,
    -- Whether a mail is to tell of it, and the one that does.
    mail_due boolean NOT NULL,
    mail_id uuid,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships
);
CREATE UNIQUE INDEX notices_source ON notifications.notices (tenant_id, user_id, source);
CREATE INDEX notices_of_member ON notifications.notices (account_id, tenant_id, id);
CREATE INDEX notices_unread ON notifications.notices (account_id, tenant_id)
    WHERE read_at IS NULL AND dismissed_at IS NULL AND in_app;
CREATE INDEX notices_to_mail ON notifications.notices (tenant_id, user_id, kind) WHERE mail_due;
CREATE INDEX notices_of_mail ON notifications.notices (mail_id) WHERE mail_id IS NOT NULL;
CREATE INDEX notices_by_age ON notifications.notices (created_at);
CALL iam.account_table('notifications.notices', 'SELECT, UPDATE');
CALL iam.system_policy('notifications.notices', 'SELECT, INSERT, UPDATE, DELETE');

-- Mails that tell of them: one of a member and a kind for all that has come since the one before.
CREATE TABLE notifications.mails (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships
);
CREATE INDEX mails_of_member ON notifications.mails (tenant_id, user_id, kind, created_at);
CREATE INDEX mails_by_age ON notifications.mails (created_at);
CALL iam.secure_table('notifications.mails', 'provider');
CALL iam.system_policy('notifications.mails', 'SELECT, INSERT, UPDATE, DELETE');

-- How a member wants to be told, where it is not as everybody is.
CREATE TABLE notifications.preferences (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    account_id uuid NOT NULL REFERENCES iam.users,
    language text NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'de')),
    -- Kinds that are not told in the product, and not by mail.
    not_in_app text[] NOT NULL DEFAULT '{}',
    not_by_mail text[] NOT NULL DEFAULT '{}',
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES iam.memberships
);
CALL iam.account_table('notifications.preferences', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('notifications.preferences', 'SELECT, INSERT, UPDATE, DELETE');

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
