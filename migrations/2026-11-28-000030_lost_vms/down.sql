-- The older release lets nobody see a difference, and knows what is lost by its reason.

ALTER TABLE compute.virtual_machines NO FORCE ROW LEVEL SECURITY;
UPDATE compute.virtual_machines SET observed_power_state = 'OFF'
WHERE observed_at IS NOT NULL AND observed_power_state IS NULL AND state = 'DELETED';
ALTER TABLE compute.virtual_machines FORCE ROW LEVEL SECURITY;
