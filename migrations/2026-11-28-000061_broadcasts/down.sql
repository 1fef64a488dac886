DROP INDEX audit.changes_activated_broadcasts;
DROP VIEW notifications.told;
DROP VIEW notifications.addressed;
DELETE FROM notifications.mails WHERE broadcast_id IS NOT NULL;
ALTER TABLE notifications.mails DROP COLUMN broadcast_id, DROP COLUMN account_id;
DROP TABLE notifications.broadcast_marks;
DROP TABLE notifications.broadcasts;
