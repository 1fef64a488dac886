DROP FUNCTION iam.take_tokens;
DROP TABLE iam.rate_limits;
