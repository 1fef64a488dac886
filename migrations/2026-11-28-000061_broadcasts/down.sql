DROP TRIGGER wake_new ON notifications.notices;
DROP TRIGGER wake_marked ON notifications.notices;
DROP VIEW notifications.told;
DROP VIEW notifications.addressed;
-- Row-level security would keep them from an owner who is no superuser.
ALTER TABLE notifications.mails NO FORCE ROW LEVEL SECURITY;
DELETE FROM notifications.mails WHERE notice_id IS NOT NULL;
ALTER TABLE notifications.mails FORCE ROW LEVEL SECURITY;
DROP INDEX notifications.mails_by_age;
ALTER TABLE notifications.mails DROP COLUMN notice_id, DROP COLUMN account_id;
CREATE INDEX mails_by_age ON notifications.mails (created_at);
DROP TABLE notifications.broadcast_marks;
DROP TABLE notifications.broadcasts;
DROP FUNCTION notifications.wake_watches;
DROP FUNCTION notifications.wake_readers;
