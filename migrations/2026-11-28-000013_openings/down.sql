DROP FUNCTION iam.enter_tenant, iam.enter_system, iam.enter_by_session, iam.enter_by_key, background_jobs.enter;
REVOKE USAGE ON SCHEMA iam, background_jobs FROM virtualstack_login;
