ALTER TABLE iam.permissions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.tenant_role_permissions NO FORCE ROW LEVEL SECURITY;
DELETE FROM iam.tenant_role_permissions WHERE permission IN
    ('platform:quota:read', 'platform:quota:update', 'quota:create', 'quota:delete', 'quota:read', 'quota:update', 'vm:console',
     'vm:snapshot', 'vm:suspend');
DELETE FROM iam.permissions WHERE code IN
    ('platform:quota:read', 'platform:quota:update', 'quota:create', 'quota:delete', 'quota:read', 'quota:update', 'vm:console',
     'vm:snapshot', 'vm:suspend');
ALTER TABLE iam.tenant_role_permissions FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.permissions FORCE ROW LEVEL SECURITY;

-- What the older release does not know is forgotten, as it can neither read nor do it: what was open of it is given up, and
-- a delete that waited behind it begins.
ALTER TABLE compute.operations NO FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.virtual_machines NO FORCE ROW LEVEL SECURITY;
ALTER TABLE background_jobs.jobs NO FORCE ROW LEVEL SECURITY;
CREATE TEMPORARY TABLE newer ON COMMIT DROP AS
    SELECT tenant_id, id, vm_id, job_id, state FROM compute.operations
    WHERE verb NOT IN ('CREATE', 'UPDATE', 'DELETE', 'START', 'STOP', 'RESTART') OR verb = 'UPDATE' AND state = 'OPEN';
UPDATE compute.virtual_machines vm SET state = 'ERROR', state_reason = 'the operation was given up', version = version + 1
    FROM newer u
    WHERE u.tenant_id = vm.tenant_id AND u.vm_id = vm.id AND u.state = 'OPEN' AND vm.state NOT IN ('DELETING', 'DELETED');
DELETE FROM background_jobs.jobs WHERE id IN (SELECT job_id FROM newer);
DELETE FROM compute.operations o USING newer u WHERE o.tenant_id = u.tenant_id AND o.id = u.id;
UPDATE background_jobs.jobs SET available_at = now() WHERE id IN (
    SELECT o.job_id FROM compute.operations o JOIN newer u ON u.tenant_id = o.tenant_id AND u.vm_id = o.vm_id
    WHERE o.state = 'QUEUED' AND u.state = 'OPEN');
UPDATE compute.operations o SET state = 'OPEN' FROM newer u
    WHERE u.tenant_id = o.tenant_id AND u.vm_id = o.vm_id AND o.state = 'QUEUED' AND u.state = 'OPEN';
DROP TABLE newer;
ALTER TABLE background_jobs.jobs FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.virtual_machines FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.operations FORCE ROW LEVEL SECURITY;

-- What the older simulator does not know is forgotten.
ALTER TABLE simulated_hypervisor.tasks NO FORCE ROW LEVEL SECURITY;
DELETE FROM simulated_hypervisor.tasks WHERE action NOT IN ('CREATE', 'POWER_ON', 'POWER_OFF', 'DESTROY');
ALTER TABLE simulated_hypervisor.tasks FORCE ROW LEVEL SECURITY;
DROP TABLE simulated_hypervisor.snapshots;
ALTER TABLE simulated_hypervisor.tasks
    DROP CONSTRAINT tasks_action_check,
    ADD CONSTRAINT tasks_action_check CHECK (action IN ('CREATE', 'POWER_ON', 'POWER_OFF', 'DESTROY'));
ALTER TABLE simulated_hypervisor.vms DROP COLUMN medium, DROP COLUMN resets;
DROP INDEX audit.changes_of_vms, audit.changes_of_vms_by_reason, compute.operations_by_vm,
    compute.virtual_machines_by_name, compute.virtual_machines_by_state, compute.virtual_machines_by_owner,
    compute.virtual_machines_by_template, compute.virtual_machines_by_create_time;
CREATE INDEX ON audit.changes (tenant_id, resource, position);
DROP TRIGGER wake ON audit.changes;
DROP FUNCTION audit.wake_watches;
ALTER TABLE audit.changes
    DROP COLUMN kind,
    DROP COLUMN after,
    ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ALTER COLUMN position ADD GENERATED ALWAYS AS IDENTITY;
ALTER TABLE audit.changes NO FORCE ROW LEVEL SECURITY;
SELECT setval(pg_get_serial_sequence('audit.changes', 'position'), max(position)) FROM audit.changes HAVING max(position) > 0;
ALTER TABLE audit.changes FORCE ROW LEVEL SECURITY;
DROP TABLE audit.change_heads, compute.console_tickets;
ALTER TABLE compute.operations DROP COLUMN snapshot_id, DROP COLUMN deadline_at, DROP COLUMN grace_from;
DROP TABLE compute.snapshots, compute.quotas;
ALTER TABLE compute.virtual_machines
    DROP COLUMN template_kind, DROP COLUMN hypervisor, DROP COLUMN wanted_cpu_count, DROP COLUMN wanted_memory_mib,
    DROP COLUMN wanted_disk_gib, DROP COLUMN occupies;
ALTER TABLE compute.provider_templates DROP COLUMN hypervisor;
