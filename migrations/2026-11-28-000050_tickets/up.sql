-- Tickets, their comments, and what only the provider's staff know of them.

-- What a tenant has of tickets. Whoever writes a ticket holds the row until the commit: so numbers have no gaps, and are in the
-- order of the commits.
CREATE TABLE support.ticket_usage (
    tenant_id uuid PRIMARY KEY REFERENCES iam.tenants,
    last_number integer NOT NULL CHECK (last_number >= 0),
    -- Those that are not closed.
    open_tickets integer NOT NULL CHECK (open_tickets >= 0)
);
CALL iam.tenant_table('support.ticket_usage', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('support.ticket_usage', 'SELECT, DELETE');

CREATE TABLE support.tickets (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    number integer NOT NULL,
    subject text NOT NULL,
    description text NOT NULL,
    category text NOT NULL CHECK (category IN ('INCIDENT', 'REQUEST', 'QUESTION', 'BILLING')),
    priority text NOT NULL CHECK (priority IN ('LOW', 'MEDIUM', 'HIGH', 'URGENT')),
    state text NOT NULL CHECK (state IN ('OPEN', 'PENDING', 'RESOLVED', 'CLOSED')),
    requester_id uuid NOT NULL,
    -- Who works on it, by the name that the tenant sees.
    assignee_name text NOT NULL DEFAULT '',
    -- What it is about; kept when that is gone.
    vm_id uuid,
    operation_id uuid,
    -- What was known of it then.
    facts jsonb NOT NULL,
    -- Those that the tenant sees.
    comment_count integer NOT NULL DEFAULT 0,
    desk_state text NOT NULL DEFAULT 'LOCAL' CHECK (desk_state IN ('LOCAL', 'PENDING', 'SYNCED', 'FAILED')),
    -- Its number in the provider's desk; empty until it is there.
    desk_ticket text NOT NULL DEFAULT '',
    desk_synced_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    closed_at timestamptz,
    -- Raised by each change; what the etag is made of.
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, requester_id) REFERENCES iam.memberships
);
CREATE UNIQUE INDEX tickets_number ON support.tickets (tenant_id, number);
CREATE INDEX tickets_by_time ON support.tickets (tenant_id, created_at);
CREATE INDEX tickets_by_requester ON support.tickets (tenant_id, requester_id, id);
-- Operators list those of all tenants.
CREATE INDEX tickets_of_all ON support.tickets (id);
CREATE INDEX tickets_of_all_by_state ON support.tickets (state, id);
CREATE INDEX tickets_of_all_by_update ON support.tickets (updated_at, id);
CREATE INDEX tickets_resolved ON support.tickets (resolved_at) WHERE state = 'RESOLVED';
CALL iam.tenant_table('support.tickets', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('support.tickets', 'SELECT, DELETE');
-- To lock rows by.
GRANT UPDATE (version) ON support.tickets TO virtualstack_system;

CREATE TABLE support.ticket_comments (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    -- The member who wrote it; none of the provider's.
    author_id uuid,
    -- By the name that they had then.
    author_name text NOT NULL,
    body text NOT NULL,
    source text NOT NULL CHECK (source IN ('API', 'DESK')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets,
    FOREIGN KEY (tenant_id, author_id) REFERENCES iam.memberships
);
CREATE INDEX ticket_comments_by_ticket ON support.ticket_comments (tenant_id, ticket_id, id);
CREATE INDEX ticket_comments_by_time ON support.ticket_comments (tenant_id, created_at);
CALL iam.tenant_table('support.ticket_comments', 'SELECT, INSERT');
CALL iam.system_policy('support.ticket_comments', 'SELECT, DELETE');

-- What only the provider's staff see stands in tables of their own: whatever goes wrong above, the tenant's role cannot read them.

-- The staff's side of a ticket.
CREATE TABLE support.ticket_staff (
    tenant_id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    -- A member of the provider's tenant.
    assignee_id uuid,
    internal_comments integer NOT NULL DEFAULT 0,
    desk_error text NOT NULL DEFAULT '',
    -- Raised by each change that the tenant does not see.
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, ticket_id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CALL iam.secure_table('support.ticket_staff', 'provider');
CALL iam.system_policy('support.ticket_staff', 'SELECT, INSERT, UPDATE, DELETE');

CREATE TABLE support.internal_comments (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    author_name text NOT NULL,
    body text NOT NULL,
    source text NOT NULL CHECK (source IN ('API', 'DESK')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE INDEX internal_comments_by_ticket ON support.internal_comments (tenant_id, ticket_id, id);
CALL iam.secure_table('support.internal_comments', 'provider');
CALL iam.system_policy('support.internal_comments', 'SELECT, INSERT, DELETE');

-- All comments, as operators see them.
CREATE VIEW support.all_comments WITH (security_invoker = true) AS
SELECT tenant_id, id, ticket_id, author_id, author_name, body, false AS internal, source, created_at FROM support.ticket_comments
UNION ALL
SELECT tenant_id, id, ticket_id, NULL, author_name, body, true, source, created_at FROM support.internal_comments;
GRANT SELECT ON support.all_comments TO virtualstack_system;
