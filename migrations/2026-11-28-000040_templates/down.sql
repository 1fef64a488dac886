DROP INDEX compute.virtual_machines_provisioning;
ALTER TABLE compute.operations DROP COLUMN error_details;
DROP TABLE compute.guest_customizations;
ALTER TABLE compute.virtual_machines DROP COLUMN further_disk_gib;
DROP VIEW compute.templates;
DROP TABLE compute.template_images, compute.template_parts, compute.user_templates;
DROP POLICY granted ON compute.provider_templates;
DROP TABLE compute.provider_template_grants;
CREATE POLICY shared ON compute.provider_templates FOR SELECT TO virtualstack_tenant, virtualstack_account USING (true);
GRANT SELECT ON compute.provider_templates TO virtualstack_account;
COMMENT ON TABLE compute.provider_templates IS 'class: shared';
DROP INDEX compute.provider_templates_identity;
ALTER TABLE compute.provider_templates
    DROP COLUMN version,
    DROP COLUMN audience,
    DROP COLUMN further_disk_gib,
    ADD COLUMN reference text,
    ADD COLUMN hypervisor text NOT NULL DEFAULT '';
ALTER TABLE compute.provider_templates NO FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.provider_template_copies NO FORCE ROW LEVEL SECURITY;
UPDATE compute.provider_templates t SET (reference, hypervisor) =
    (SELECT reference, hypervisor FROM compute.provider_template_copies c WHERE c.template_id = t.id ORDER BY state, hypervisor LIMIT 1);
DELETE FROM compute.provider_templates WHERE reference IS NULL;
ALTER TABLE compute.provider_templates FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.provider_templates ALTER COLUMN reference SET NOT NULL, ADD UNIQUE (reference);
DROP TABLE compute.provider_template_copies;
