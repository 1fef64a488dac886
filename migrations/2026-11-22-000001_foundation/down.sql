DROP SCHEMA audit, billing, notifications, support, background_jobs, compute, iam CASCADE;
