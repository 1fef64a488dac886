-- Names of the field: the size that an open operation gives a VM is the desired one, and a VM counts in the quota or does not.
-- Expand and contract in one: nothing is released yet.

ALTER TABLE compute.virtual_machines RENAME COLUMN wanted_cpu_count TO desired_cpu_count;
ALTER TABLE compute.virtual_machines RENAME COLUMN wanted_memory_mib TO desired_memory_mib;
ALTER TABLE compute.virtual_machines RENAME COLUMN wanted_disk_gib TO desired_disk_gib;
ALTER TABLE compute.virtual_machines RENAME COLUMN occupies TO counted;
