-- Files that belong to tickets. The bytes are objects of the object store, named by the tenant, the file, and where they begin in it.

CREATE TABLE support.ticket_attachments (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    file_name text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    content_type text NOT NULL,
    sha256 text NOT NULL,
    -- The member who sent it; none of the provider's.
    author_id uuid,
    author_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets,
    FOREIGN KEY (tenant_id, author_id) REFERENCES iam.memberships
);
CREATE INDEX ticket_attachments_by_ticket ON support.ticket_attachments (tenant_id, ticket_id, id);
CALL iam.tenant_table('support.ticket_attachments', 'SELECT, INSERT, DELETE');
CALL iam.system_policy('support.ticket_attachments', 'SELECT, DELETE');

-- Those that only the provider's staff see.
CREATE TABLE support.internal_attachments (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    file_name text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    content_type text NOT NULL,
    sha256 text NOT NULL,
    author_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE INDEX internal_attachments_by_ticket ON support.internal_attachments (tenant_id, ticket_id, id);
CALL iam.secure_table('support.internal_attachments', 'provider');
CALL iam.system_policy('support.internal_attachments', 'SELECT, INSERT, DELETE');

-- All of them, as operators see them.
CREATE VIEW support.all_attachments WITH (security_invoker = true) AS
SELECT tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, author_id, author_name, false AS internal, created_at
FROM support.ticket_attachments
UNION ALL
SELECT tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, NULL, author_name, true, created_at
FROM support.internal_attachments;
GRANT SELECT ON support.all_attachments TO virtualstack_system;

ALTER TABLE support.ticket_usage
    -- Of all files that its tickets have.
    ADD COLUMN attachment_bytes bigint NOT NULL DEFAULT 0 CHECK (attachment_bytes >= 0);
