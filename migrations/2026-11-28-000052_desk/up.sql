-- What the provider's desk, where it is another program, has of tickets.

ALTER TABLE support.tickets
    -- The version that the desk has of it.
    ADD COLUMN desk_version bigint NOT NULL DEFAULT 0;
CREATE INDEX tickets_to_send ON support.tickets (tenant_id, updated_at) WHERE desk_version < version;
ALTER TABLE support.ticket_staff
    -- Changes that the tenant does not see and the desk does not have. They stand apart, so that nothing of the tenant's tells of them.
    ADD COLUMN unsent integer NOT NULL DEFAULT 0;
CREATE INDEX ticket_staff_to_send ON support.ticket_staff (tenant_id, ticket_id) WHERE unsent > 0;
-- What stands in the desk moves neither the etag nor the time of a ticket, so it is the system's to write.
GRANT UPDATE (version, desk_version, desk_state, desk_ticket, desk_synced_at) ON support.tickets TO virtualstack_system;

-- A ticket and its twin in the desk, and what both had when they were last the same: who has changed something since is told by
-- that.
CREATE TABLE support.desk_tickets (
    tenant_id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    -- Which desk: a number means something only there.
    desk text NOT NULL,
    -- The desk's number; null until it is known.
    remote_id text,
    -- Whether something may be there of which no answer came, and since when: it has to be looked for before it is put there again.
    open_try boolean NOT NULL DEFAULT false,
    begun_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT '',
    -- The desk's own word, which may be one that we do not know.
    remote_state text NOT NULL DEFAULT '',
    priority text NOT NULL DEFAULT '',
    subject text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    -- When the next try is due, after one that failed; null for what is not tried again.
    retry_at timestamptz DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    -- By the desk's clock.
    remote_updated_at timestamptz,
    deleted boolean NOT NULL DEFAULT false,
    -- When it is to be read though the desk does not say that it has changed: it could not be read, or was not known yet.
    read_at timestamptz,
    read_failures integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, ticket_id, desk),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE UNIQUE INDEX desk_tickets_remote ON support.desk_tickets (desk, remote_id);
CREATE INDEX desk_tickets_to_read ON support.desk_tickets (desk, read_at) WHERE read_at IS NOT NULL;
CALL iam.secure_table('support.desk_tickets', 'provider');
CALL iam.system_policy('support.desk_tickets', 'SELECT, INSERT, UPDATE, DELETE');

-- Comments and files that stand on both sides: nothing is sent twice, and what we have sent does not come back.
CREATE TABLE support.desk_items (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    desk text NOT NULL,
    -- Null for what the desk refuses.
    remote_id text,
    PRIMARY KEY (tenant_id, id, desk),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE UNIQUE INDEX desk_items_remote ON support.desk_items (desk, remote_id);
CREATE INDEX desk_items_by_ticket ON support.desk_items (tenant_id, ticket_id);
CALL iam.secure_table('support.desk_items', 'provider');
CALL iam.system_policy('support.desk_items', 'SELECT, INSERT, DELETE');

-- Up to when changes of the desk were read, by its clock.
CREATE TABLE support.desk_cursors (
    desk text PRIMARY KEY,
    read_until timestamptz NOT NULL,
    -- When that was, by ours.
    polled_at timestamptz NOT NULL,
    -- Whether more was there to read.
    cut boolean NOT NULL DEFAULT false
);
CALL iam.secure_table('support.desk_cursors', 'machinery');
CALL iam.system_policy('support.desk_cursors', 'SELECT, INSERT, UPDATE');
