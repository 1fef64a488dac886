-- Provider templates, virtual machines and operations.

CREATE TABLE compute.provider_templates (
    id uuid PRIMARY KEY,
    -- How the hypervisor refers to it.
    reference text NOT NULL UNIQUE,
    display_name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('OVA', 'ISO')),
    state text NOT NULL CHECK (state IN ('READY', 'UNAVAILABLE')),
    guest_os text NOT NULL,
    cpu_count integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_gib integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CALL iam.shared_table('compute.provider_templates');
CALL iam.system_policy('compute.provider_templates', 'SELECT, INSERT, UPDATE');

CREATE TABLE compute.virtual_machines (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL DEFAULT '',
    state text NOT NULL,
    state_reason text NOT NULL DEFAULT '',
    cpu_count integer NOT NULL CHECK (cpu_count > 0),
    memory_mib integer NOT NULL CHECK (memory_mib > 0),
    disk_gib integer NOT NULL CHECK (disk_gib > 0),
    -- The template as it was: a VM outlives it.
    template_id uuid NOT NULL,
    template_reference text NOT NULL,
    template_display_name text NOT NULL,
    guest_os text NOT NULL,
    ip_addresses text[] NOT NULL DEFAULT '{}',
    labels jsonb NOT NULL DEFAULT '{}',
    owner_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    observed_at timestamptz,
    observed_power_state text,
    deleted_at timestamptz,
    purge_at timestamptz,
    -- Raised by each change; what the etag is made of.
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, owner_id) REFERENCES iam.memberships
);
CREATE UNIQUE INDEX virtual_machines_display_name ON compute.virtual_machines (tenant_id, display_name) WHERE deleted_at IS NULL;
CREATE INDEX virtual_machines_purge_at ON compute.virtual_machines (purge_at) WHERE purge_at IS NOT NULL;
CALL iam.tenant_table('compute.virtual_machines');
CALL iam.system_policy('compute.virtual_machines', 'SELECT');

CREATE TABLE compute.operations (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    verb text NOT NULL,
    state text NOT NULL CHECK (state IN ('OPEN', 'QUEUED', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    -- The VM that it works on; kept when the VM is gone.
    vm_id uuid NOT NULL,
    -- The job that does the work; none for what was done at once.
    job_id uuid,
    step text NOT NULL DEFAULT '',
    progress_percent integer NOT NULL DEFAULT 0 CHECK (progress_percent BETWEEN 0 AND 100),
    cancel_requested boolean NOT NULL DEFAULT false,
    -- google.rpc.Code, reason and message of a failure.
    error_code integer,
    error_reason text,
    error_message text,
    -- The VM as it was when it ceased to be, for the response of the operation that deleted it.
    tombstone jsonb,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
-- One open operation per VM, and one delete that waits behind it.
CREATE UNIQUE INDEX operations_open ON compute.operations (tenant_id, vm_id) WHERE state = 'OPEN';
CREATE UNIQUE INDEX operations_queued ON compute.operations (tenant_id, vm_id) WHERE state = 'QUEUED';
CALL iam.tenant_table('compute.operations');
