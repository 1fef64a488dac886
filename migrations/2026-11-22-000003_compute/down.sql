DROP TABLE compute.operations, compute.virtual_machines, compute.provider_templates;
