DROP SCHEMA simulated_hypervisor CASCADE;
