-- A VM that was looked for on the hypervisor and not found has no observed power state. Releases before wrote that a deleted one
-- is off, and the truth only into its reason.

ALTER TABLE compute.virtual_machines NO FORCE ROW LEVEL SECURITY;
UPDATE compute.virtual_machines SET observed_power_state = NULL
WHERE observed_at IS NOT NULL AND state_reason = 'the VM is gone from the hypervisor';
ALTER TABLE compute.virtual_machines FORCE ROW LEVEL SECURITY;
