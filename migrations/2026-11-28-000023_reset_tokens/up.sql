-- The token of a reset, sealed with the master key: who asks again within its time is sent the same one.
ALTER TABLE iam.password_resets ADD COLUMN sealed_token bytea;
