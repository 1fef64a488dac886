ALTER TABLE audit.changes ALTER COLUMN created_at SET DEFAULT now();
ALTER TABLE audit.change_heads DROP COLUMN changed_at;
