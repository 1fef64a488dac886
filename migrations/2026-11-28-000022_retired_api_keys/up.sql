-- What deleted API keys were known by, so that whoever still uses one is told to the tenant that had it.
CREATE TABLE iam.retired_api_keys (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    public_id text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CALL iam.tenant_table('iam.retired_api_keys', 'SELECT, INSERT');
CALL iam.system_policy('iam.retired_api_keys', 'SELECT, INSERT, DELETE');

CREATE FUNCTION iam.retire_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO iam.retired_api_keys (tenant_id, id, public_id) VALUES (OLD.tenant_id, OLD.id, OLD.public_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER retire AFTER DELETE ON iam.api_keys FOR EACH ROW EXECUTE FUNCTION iam.retire_api_key();
