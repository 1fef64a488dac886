DROP INDEX compute.operations_open, compute.operations_queued, compute.operations_by_target;
ALTER TABLE compute.operations NO FORCE ROW LEVEL SECURITY;
ALTER TABLE background_jobs.jobs NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.changes NO FORCE ROW LEVEL SECURITY;

-- The older release knows operations on VMs and snapshots only: others are forgotten, with their jobs.
DELETE FROM background_jobs.jobs WHERE id IN (
    SELECT job_id FROM compute.operations WHERE target !~ '^vms/[0-9a-f-]{36}(/snapshots/[0-9a-f-]{36})?$');
DELETE FROM compute.operations WHERE target !~ '^vms/[0-9a-f-]{36}(/snapshots/[0-9a-f-]{36})?$';
ALTER TABLE compute.operations ADD COLUMN vm_id uuid, ADD COLUMN snapshot_id uuid;
UPDATE compute.operations SET
    vm_id = split_part(target, '/', 2)::uuid,
    snapshot_id = nullif(split_part(target, '/', 4), '')::uuid,
    verb = verb || CASE WHEN target LIKE '%/snapshots/%' THEN '_SNAPSHOT' ELSE '' END;
ALTER TABLE compute.operations ALTER COLUMN vm_id SET NOT NULL, DROP COLUMN target, DROP COLUMN slot;

-- It reads the same of jobs and of the change log.
UPDATE background_jobs.jobs SET payload = payload || jsonb_build_object('verb', payload->>'verb' || '_SNAPSHOT')
    WHERE kind = 'vm_snapshot' AND payload->>'verb' NOT LIKE '%\_SNAPSHOT';
UPDATE audit.changes SET kind = NULL, after = NULL
    WHERE resource LIKE 'operations/%' AND after->>'target' !~ '^vms/[0-9a-f-]{36}(/snapshots/[0-9a-f-]{36})?$';
UPDATE audit.changes SET after = (after - 'target' - 'slot') || jsonb_build_object(
        'vm_id', split_part(after->>'target', '/', 2),
        'snapshot_id', nullif(split_part(after->>'target', '/', 4), ''),
        'verb', after->>'verb' || CASE WHEN after->>'target' LIKE '%/snapshots/%' THEN '_SNAPSHOT' ELSE '' END)
    WHERE resource LIKE 'operations/%' AND after ? 'target';

ALTER TABLE audit.changes FORCE ROW LEVEL SECURITY;
ALTER TABLE background_jobs.jobs FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.operations FORCE ROW LEVEL SECURITY;

CREATE UNIQUE INDEX operations_open ON compute.operations (tenant_id, vm_id) WHERE state = 'OPEN';
CREATE UNIQUE INDEX operations_queued ON compute.operations (tenant_id, vm_id) WHERE state = 'QUEUED';
CREATE INDEX operations_by_vm ON compute.operations (tenant_id, vm_id, id);
