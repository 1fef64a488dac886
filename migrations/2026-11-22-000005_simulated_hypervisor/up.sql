-- What the simulated hypervisor remembers. Its role sees nothing else, and nothing else sees this.

CREATE SCHEMA simulated_hypervisor;
GRANT USAGE ON SCHEMA simulated_hypervisor TO virtualstack_simulator;

CREATE TABLE simulated_hypervisor.vms (
    id uuid PRIMARY KEY,
    -- The operation that made it, as the marker on a real hypervisor says.
    operation_id uuid NOT NULL,
    name text NOT NULL,
    template text NOT NULL,
    cpu_count integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_gib integer NOT NULL,
    power text NOT NULL CHECK (power IN ('ON', 'OFF', 'PAUSED')),
    ip_address text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A task takes until finish_at; its effect takes place then.
CREATE TABLE simulated_hypervisor.tasks (
    id uuid PRIMARY KEY,
    vm_id uuid NOT NULL,
    action text NOT NULL CHECK (action IN ('CREATE', 'POWER_ON', 'POWER_OFF', 'DESTROY')),
    parameters jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    finish_at timestamptz NOT NULL,
    -- Set when the effect has taken place, or failed.
    finished_at timestamptz,
    fault text
);
CREATE INDEX ON simulated_hypervisor.tasks (vm_id);
-- One task per VM at a time, as on a real hypervisor.
CREATE UNIQUE INDEX tasks_running ON simulated_hypervisor.tasks (vm_id) WHERE finished_at IS NULL;

CREATE SEQUENCE simulated_hypervisor.addresses AS integer MAXVALUE 16000000 CYCLE;

CALL iam.secure_table('simulated_hypervisor.vms', 'machinery');
CALL iam.secure_table('simulated_hypervisor.tasks', 'machinery');
CREATE POLICY simulator ON simulated_hypervisor.vms TO virtualstack_simulator USING (true);
CREATE POLICY simulator ON simulated_hypervisor.tasks TO virtualstack_simulator USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA simulated_hypervisor TO virtualstack_simulator;
GRANT USAGE ON SEQUENCE simulated_hypervisor.addresses TO virtualstack_simulator;
