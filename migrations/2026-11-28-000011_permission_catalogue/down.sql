CREATE PROCEDURE iam.add_permission(code text, title text, description text, module text) LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE iam.permissions NO FORCE ROW LEVEL SECURITY;
    INSERT INTO iam.permissions VALUES (code, title, description, module);
    ALTER TABLE iam.permissions FORCE ROW LEVEL SECURITY;
END
$$;
REVOKE INSERT, UPDATE, DELETE ON iam.permissions FROM virtualstack_system;
ALTER TABLE iam.permissions DROP COLUMN roles;
