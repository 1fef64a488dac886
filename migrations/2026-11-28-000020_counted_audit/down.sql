ALTER TABLE audit.logs
    DROP COLUMN last_time,
    DROP COLUMN count;
