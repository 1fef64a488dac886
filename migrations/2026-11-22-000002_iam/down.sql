DROP TABLE audit.changes, audit.logs;
DROP FUNCTION iam.assert_access;
DROP PROCEDURE iam.add_permission;
DROP TABLE iam.request_ids, iam.signing_keys, iam.refresh_tokens, iam.sessions, iam.user_tenant_roles,
    iam.tenant_role_permissions, iam.tenant_roles, iam.memberships, iam.users, iam.permissions, iam.tenants;
