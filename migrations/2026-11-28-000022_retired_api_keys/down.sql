DROP TRIGGER retire ON iam.api_keys;
DROP FUNCTION iam.retire_api_key;
DROP TABLE iam.retired_api_keys;
