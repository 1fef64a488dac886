ALTER TABLE iam.password_resets DROP COLUMN sealed_token;
