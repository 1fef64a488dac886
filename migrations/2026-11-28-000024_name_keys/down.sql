REVOKE UPDATE (name_key) ON iam.tenant_roles FROM virtualstack_tenant, virtualstack_system;
ALTER TABLE iam.tenant_roles DROP COLUMN name_key;
