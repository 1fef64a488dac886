-- When the last change of a tenant was made. Whoever appends takes position and time under the lock of this row, so that the
-- times of the change log never run backwards, whatever the clock does.

ALTER TABLE audit.change_heads ADD COLUMN changed_at timestamptz;
-- For a release before, which takes no time from here: at least that of the change and not that of its transaction.
ALTER TABLE audit.changes ALTER COLUMN created_at SET DEFAULT clock_timestamp();
