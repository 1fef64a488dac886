-- What makes two names of custom roles the same: the name, trimmed, case-folded, NFKC. The product writes it, since PostgreSQL
-- cannot fold like that; for roles of before at its start. Of roles whose names had been told apart until then, the younger
-- ones have "~" and their id behind it. System roles have none: no role of a tenant's has their names.
ALTER TABLE iam.tenant_roles ADD COLUMN name_key text;
CREATE UNIQUE INDEX tenant_roles_name_key ON iam.tenant_roles (tenant_id, name_key);
GRANT UPDATE (name_key) ON iam.tenant_roles TO virtualstack_tenant, virtualstack_system;
