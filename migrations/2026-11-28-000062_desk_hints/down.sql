ALTER TABLE support.desk_cursors DROP COLUMN asked_at;
