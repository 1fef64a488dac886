ALTER TABLE compute.virtual_machines RENAME COLUMN desired_cpu_count TO wanted_cpu_count;
ALTER TABLE compute.virtual_machines RENAME COLUMN desired_memory_mib TO wanted_memory_mib;
ALTER TABLE compute.virtual_machines RENAME COLUMN desired_disk_gib TO wanted_disk_gib;
ALTER TABLE compute.virtual_machines RENAME COLUMN counted TO occupies;

-- The older release reads what the change log keeps of VMs by the older names.
UPDATE audit.changes
SET after = after - ARRAY['desired_cpu_count', 'desired_memory_mib', 'desired_disk_gib', 'counted'] || jsonb_build_object(
    'wanted_cpu_count', after -> 'desired_cpu_count', 'wanted_memory_mib', after -> 'desired_memory_mib',
    'wanted_disk_gib', after -> 'desired_disk_gib', 'occupies', after -> 'counted')
WHERE after ? 'counted' AND resource LIKE 'vms/%';
