-- An operation names what it works on, of whatever module, and the slot that only one open operation may hold. What its verb
-- was done to no longer stands in the verb.
--
-- Expand and contract in one: servers and workers of the release before know only the columns that go here. Stop them first.

ALTER TABLE compute.operations
    -- Full name of what it works on; kept when that is gone. By bytes: what is below a name lies beside it, in every database.
    ADD COLUMN target text COLLATE "C",
    -- What only one open operation may hold, e.g. the name of a VM, also for its snapshots. Null where it held nothing.
    ADD COLUMN slot text COLLATE "C";

ALTER TABLE compute.operations NO FORCE ROW LEVEL SECURITY;
UPDATE compute.operations SET
    target = 'vms/' || vm_id || coalesce('/snapshots/' || snapshot_id, ''),
    slot = CASE WHEN job_id IS NOT NULL THEN 'vms/' || vm_id END,
    verb = regexp_replace(verb, '_SNAPSHOT$', '');
ALTER TABLE compute.operations FORCE ROW LEVEL SECURITY;

DROP INDEX compute.operations_open, compute.operations_queued, compute.operations_by_vm;
ALTER TABLE compute.operations ALTER COLUMN target SET NOT NULL, DROP COLUMN vm_id, DROP COLUMN snapshot_id;

-- One open operation per slot, and one delete that waits behind it.
CREATE UNIQUE INDEX operations_open ON compute.operations (tenant_id, slot) WHERE state = 'OPEN';
CREATE UNIQUE INDEX operations_queued ON compute.operations (tenant_id, slot) WHERE state = 'QUEUED';
-- What was done to one thing, or to what is below it.
CREATE INDEX operations_by_target ON compute.operations (tenant_id, target, id);
