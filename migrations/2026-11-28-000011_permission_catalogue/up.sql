-- The catalogue of permissions is that of the .proto files. Whoever migrates or starts the product hands it in, and the
-- system role writes it; migrations list no permissions any more.

ALTER TABLE iam.permissions
    -- Keys of the system roles that hold it.
    ADD COLUMN roles text[] NOT NULL DEFAULT '{}';
GRANT INSERT, UPDATE, DELETE ON iam.permissions TO virtualstack_system;
DROP PROCEDURE iam.add_permission;
