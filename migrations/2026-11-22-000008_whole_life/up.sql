-- The VM's whole life: quotas, snapshots, sizes on their way, console tickets, operations that end in a stated time, and a
-- change log that watches can follow.

-- What a tenant may have at most, and what it has. A missing limit is unlimited.
CREATE TABLE compute.quotas (
    tenant_id uuid PRIMARY KEY REFERENCES iam.tenants,
    max_vms bigint CHECK (max_vms >= 0),
    max_vcpus bigint CHECK (max_vcpus >= 0),
    max_memory_mib bigint CHECK (max_memory_mib >= 0),
    max_disk_gib bigint CHECK (max_disk_gib >= 0),
    max_snapshots bigint CHECK (max_snapshots >= 0),
    max_templates bigint CHECK (max_templates >= 0),
    max_template_bytes bigint CHECK (max_template_bytes >= 0),
    vms bigint NOT NULL DEFAULT 0 CHECK (vms >= 0),
    vcpus bigint NOT NULL DEFAULT 0 CHECK (vcpus >= 0),
    memory_mib bigint NOT NULL DEFAULT 0 CHECK (memory_mib >= 0),
    disk_gib bigint NOT NULL DEFAULT 0 CHECK (disk_gib >= 0),
    snapshots bigint NOT NULL DEFAULT 0 CHECK (snapshots >= 0),
    templates bigint NOT NULL DEFAULT 0 CHECK (templates >= 0),
    template_bytes bigint NOT NULL DEFAULT 0 CHECK (template_bytes >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Raised by each change of a limit; what the etag is made of.
    version bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50);
CALL iam.tenant_table('compute.quotas', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('compute.quotas', 'SELECT, INSERT, UPDATE, DELETE');

ALTER TABLE compute.provider_templates
    -- The adapter of the hypervisor that has it.
    ADD COLUMN hypervisor text NOT NULL DEFAULT '';

ALTER TABLE compute.virtual_machines
    ADD COLUMN template_kind text NOT NULL DEFAULT 'OVA' CHECK (template_kind IN ('OVA', 'ISO')),
    ADD COLUMN hypervisor text NOT NULL DEFAULT '',
    -- The size that an open operation is to give it.
    ADD COLUMN wanted_cpu_count integer CHECK (wanted_cpu_count > 0),
    ADD COLUMN wanted_memory_mib integer CHECK (wanted_memory_mib > 0),
    ADD COLUMN wanted_disk_gib integer CHECK (wanted_disk_gib > 0),
    -- Whether something of it is on the hypervisor, or may be: then it counts against the quota.
    ADD COLUMN occupies boolean NOT NULL DEFAULT true;

CREATE TABLE compute.snapshots (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    vm_id uuid NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('CREATING', 'READY', 'DELETING', 'ERROR')),
    state_reason text NOT NULL DEFAULT '',
    -- What its VM had when it was made, and has again when it is put back to it.
    cpu_count integer NOT NULL CHECK (cpu_count > 0),
    memory_mib integer NOT NULL CHECK (memory_mib > 0),
    creator text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Raised by each change; what the etag is made of.
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, vm_id) REFERENCES compute.virtual_machines
);
CREATE UNIQUE INDEX snapshots_display_name ON compute.snapshots (tenant_id, vm_id, display_name);
CREATE INDEX snapshots_vm ON compute.snapshots (tenant_id, vm_id, id);
CALL iam.tenant_table('compute.snapshots');

ALTER TABLE compute.operations
    -- The snapshot that it works on; kept when the snapshot is gone.
    ADD COLUMN snapshot_id uuid,
    -- The deadline: only a rollback goes on after it.
    ADD COLUMN deadline_at timestamptz NOT NULL DEFAULT now() + interval '1 hour',
    -- When the grace began, of a rollback or of a step that has none. It counts from the deadline if that is later.
    ADD COLUMN grace_from timestamptz;
ALTER TABLE compute.operations ALTER COLUMN deadline_at DROP DEFAULT;

-- Tickets for consoles, sealed, until they are fetched, once, or are too old.
CREATE TABLE compute.console_tickets (
    tenant_id uuid NOT NULL,
    operation_id uuid NOT NULL,
    sealed_ticket bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, operation_id),
    FOREIGN KEY (tenant_id, operation_id) REFERENCES compute.operations ON DELETE CASCADE
);
CREATE INDEX console_tickets_expires_at ON compute.console_tickets (expires_at);
CALL iam.tenant_table('compute.console_tickets', 'SELECT, INSERT, DELETE');
CALL iam.system_policy('compute.console_tickets', 'SELECT, DELETE');

-- The position of a tenant's last change. Who appends takes the next ones and keeps this row until it commits, so positions
-- follow the order of commits: whoever has read up to a position has missed nothing before it.
CREATE TABLE audit.change_heads (
    tenant_id uuid PRIMARY KEY REFERENCES iam.tenants,
    position bigint NOT NULL
) WITH (fillfactor = 50);
CALL iam.tenant_table('audit.change_heads', 'SELECT, INSERT, UPDATE');
CALL iam.system_policy('audit.change_heads', 'SELECT, INSERT, UPDATE, DELETE');

ALTER TABLE audit.changes
    ALTER COLUMN position DROP IDENTITY,
    DROP COLUMN xid,
    -- For resources that can be watched: what became of it, and what it was after that, or last.
    ADD COLUMN kind text CHECK (kind IN ('CREATED', 'UPDATED', 'DELETED')),
    ADD COLUMN after jsonb,
    ADD CONSTRAINT changes_watched CHECK ((kind IS NULL) = (after IS NULL));

-- Rows of before.
ALTER TABLE iam.tenants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.changes NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.change_heads NO FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.quotas NO FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.virtual_machines NO FORCE ROW LEVEL SECURITY;
INSERT INTO audit.change_heads (tenant_id, position) SELECT tenant_id, max(position) FROM audit.changes GROUP BY tenant_id;
INSERT INTO compute.quotas (tenant_id, vms, vcpus, memory_mib, disk_gib)
    SELECT t.id, count(vm.id) FILTER (WHERE vm.deleted_at IS NULL), coalesce(sum(vm.cpu_count) FILTER (WHERE vm.deleted_at IS NULL), 0),
        coalesce(sum(vm.memory_mib) FILTER (WHERE vm.deleted_at IS NULL), 0), coalesce(sum(vm.disk_gib), 0)
    FROM iam.tenants t LEFT JOIN compute.virtual_machines vm ON vm.tenant_id = t.id
    WHERE t.state <> 'PURGED' GROUP BY t.id;
ALTER TABLE compute.virtual_machines FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.quotas FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.change_heads FORCE ROW LEVEL SECURITY;
ALTER TABLE audit.changes FORCE ROW LEVEL SECURITY;
ALTER TABLE iam.tenants FORCE ROW LEVEL SECURITY;

-- What lists read. Each index ends in what ends the order, so that a page is read where it begins and no further. Row-level
-- security lets only leakproof comparisons into an index, and those are all of the kinds here. A VM is written a few times
-- in its life and listed all the time, so it has one for each filter that finds few among many: its state (what is in
-- ERROR), owner and template; and one for each order that people read by. That of names has the collation that lists
-- compare in, and also finds names and how they begin. Sizes, labels and other times are not worth their writes.
CREATE INDEX virtual_machines_by_name ON compute.virtual_machines (tenant_id, display_name COLLATE "und-x-icu", id);
CREATE INDEX virtual_machines_by_state ON compute.virtual_machines (tenant_id, state, id);
CREATE INDEX virtual_machines_by_owner ON compute.virtual_machines (tenant_id, owner_id, id);
CREATE INDEX virtual_machines_by_template ON compute.virtual_machines (tenant_id, template_id, id);
CREATE INDEX virtual_machines_by_create_time ON compute.virtual_machines (tenant_id, created_at, id);
-- What was done to one VM.
CREATE INDEX operations_by_vm ON compute.operations (tenant_id, vm_id, id);
-- Only VMs have event lists. Most changes are those of operations, whose steps then write no index but the primary key's.
DROP INDEX audit.changes_tenant_id_resource_position_idx;
CREATE INDEX changes_of_vms ON audit.changes (tenant_id, resource, position) WHERE resource LIKE 'vms/%';
CREATE INDEX changes_of_vms_by_reason ON audit.changes (tenant_id, resource, reason, position) WHERE resource LIKE 'vms/%';

-- Wakes the watches of a tenant, once per statement.
CREATE FUNCTION audit.wake_watches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_changes', watched.tenant_id::text)
    FROM (SELECT DISTINCT tenant_id FROM written WHERE kind IS NOT NULL) watched;
    RETURN NULL;
END
$$;
CREATE TRIGGER wake AFTER INSERT ON audit.changes
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION audit.wake_watches();

-- The simulated hypervisor learns the rest.
ALTER TABLE simulated_hypervisor.vms
    -- The medium in its drive, for what was made from one.
    ADD COLUMN medium text,
    ADD COLUMN resets integer NOT NULL DEFAULT 0;
ALTER TABLE simulated_hypervisor.tasks
    DROP CONSTRAINT tasks_action_check,
    ADD CONSTRAINT tasks_action_check CHECK (action IN ('CREATE', 'POWER_ON', 'POWER_OFF', 'SUSPEND', 'SHUT_DOWN', 'RESET',
        'RESIZE', 'SNAPSHOT', 'REMOVE_SNAPSHOT', 'REVERT', 'DESTROY'));
CREATE TABLE simulated_hypervisor.snapshots (
    id uuid PRIMARY KEY,
    vm_id uuid NOT NULL REFERENCES simulated_hypervisor.vms ON DELETE CASCADE,
    name text NOT NULL,
    cpu_count integer NOT NULL,
    memory_mib integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON simulated_hypervisor.snapshots (vm_id);
CALL iam.secure_table('simulated_hypervisor.snapshots', 'machinery');
CREATE POLICY simulator ON simulated_hypervisor.snapshots TO virtualstack_simulator USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON simulated_hypervisor.snapshots TO virtualstack_simulator;

CALL iam.add_permission('platform:quota:read', 'See quotas of tenants', 'Read limits and usage of every tenant.', 'compute');
CALL iam.add_permission('platform:quota:update', 'Set quotas', 'Set the limits of tenants.', 'compute');
CALL iam.add_permission('quota:create', 'Create quotas', 'Nothing within a tenant: a tenant has one quota from its beginning.', 'compute');
CALL iam.add_permission('quota:delete', 'Delete quotas', 'Nothing within a tenant: a tenant has one quota to its end.', 'compute');
CALL iam.add_permission('quota:read', 'See the quota', 'Read limits and usage of the tenant.', 'compute');
CALL iam.add_permission('quota:update', 'Set the quota', 'Nothing within a tenant: quotas are set by operators of the platform.', 'compute');
CALL iam.add_permission('vm:console', 'Open consoles', 'Open the console of virtual machines.', 'compute');
CALL iam.add_permission('vm:snapshot', 'Use snapshots', 'Make, delete and go back to snapshots of virtual machines.', 'compute');
CALL iam.add_permission('vm:suspend', 'Suspend VMs', 'Suspend virtual machines to disk.', 'compute');
