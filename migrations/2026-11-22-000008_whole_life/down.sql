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
ALTER TABLE compute.operations DROP COLUMN snapshot_id, DROP COLUMN deadline_at;
DROP TABLE compute.snapshots, compute.quotas;
ALTER TABLE compute.virtual_machines
    DROP COLUMN template_kind, DROP COLUMN hypervisor, DROP COLUMN wanted_cpu_count, DROP COLUMN wanted_memory_mib,
    DROP COLUMN wanted_disk_gib, DROP COLUMN occupies;
ALTER TABLE compute.provider_templates DROP COLUMN hypervisor;
