-- Templates that were imported to the simulated hypervisor, each when it is whole. Those that it always offers have no rows.

CREATE TABLE simulated_hypervisor.templates (
    id uuid PRIMARY KEY,
    -- The operation that imported it, as the marker on a real hypervisor says.
    operation_id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('OVA', 'ISO')),
    guest_os text NOT NULL,
    cpu_count integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_gib integer NOT NULL,
    further_disk_gib integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CALL iam.secure_table('simulated_hypervisor.templates', 'machinery');
CREATE POLICY simulator ON simulated_hypervisor.templates TO virtualstack_simulator USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON simulated_hypervisor.templates TO virtualstack_simulator;
