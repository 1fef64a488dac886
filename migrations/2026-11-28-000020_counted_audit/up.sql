-- A row of the audit log may stand for several equal calls: those of a minute at most, by one server.
ALTER TABLE audit.logs
    ADD COLUMN count bigint NOT NULL DEFAULT 1 CHECK (count > 0),
    -- When the last of several was. Null where the row stands for one.
    ADD COLUMN last_time timestamptz;

-- A row that counts on is the only one that changes, and nothing else of it does.
GRANT UPDATE (count, last_time) ON audit.logs TO virtualstack_system;
