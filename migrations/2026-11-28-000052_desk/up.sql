-- What the provider's desk, where it is another program, has of tickets.

ALTER TABLE support.tickets
    -- The version that the desk has of it.
    ADD COLUMN desk_version bigint NOT NULL DEFAULT 0;
CREATE INDEX tickets_to_send ON support.tickets (tenant_id, updated_at) WHERE desk_version < version;
-- What stands in the desk moves neither the etag nor the time of a ticket, so it is the system's to write.
GRANT UPDATE (version, desk_version, desk_state, desk_ticket, desk_synced_at) ON support.tickets TO virtualstack_system;

-- A ticket and its twin in the desk, and what both had when they were last the same: who has changed something since is told by
-- that.
CREATE TABLE support.desk_tickets (
    tenant_id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    -- The desk's number; null until it is known.
    remote_id text,
    -- Since when it is to be there: whether it is has to be looked up, where a reply was lost.
    begun_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT '',
    -- The desk's own word, which may be one that we do not know.
    remote_state text NOT NULL DEFAULT '',
    priority text NOT NULL DEFAULT '',
    subject text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    -- By the desk's clock.
    remote_updated_at timestamptz,
    -- When the next try is due, after one that failed; null for what is not tried again.
    retry_at timestamptz DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, ticket_id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE UNIQUE INDEX desk_tickets_remote ON support.desk_tickets (remote_id);
CALL iam.secure_table('support.desk_tickets', 'provider');
CALL iam.system_policy('support.desk_tickets', 'SELECT, INSERT, UPDATE, DELETE');

-- Comments and files that stand on both sides: nothing is sent twice, and what we have sent does not come back.
CREATE TABLE support.desk_items (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    ticket_id uuid NOT NULL,
    remote_id text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES support.tickets
);
CREATE UNIQUE INDEX desk_items_remote ON support.desk_items (remote_id);
CREATE INDEX desk_items_by_ticket ON support.desk_items (tenant_id, ticket_id);
CALL iam.secure_table('support.desk_items', 'provider');
CALL iam.system_policy('support.desk_items', 'SELECT, INSERT, DELETE');

-- Up to when changes of the desk were read, by its clock.
CREATE TABLE support.desk_cursors (
    desk text PRIMARY KEY,
    read_until timestamptz NOT NULL,
    -- When that was, by ours.
    polled_at timestamptz NOT NULL
);
CALL iam.secure_table('support.desk_cursors', 'machinery');
CALL iam.system_policy('support.desk_cursors', 'SELECT, INSERT, UPDATE');
