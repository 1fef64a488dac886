DROP TABLE simulated_hypervisor.templates;
