-- When the desk last said that something has changed there.
ALTER TABLE support.desk_cursors ADD COLUMN asked_at timestamptz;
