REVOKE SELECT ON audit.changes FROM virtualstack_system;
DROP TABLE notifications.quota_marks;
DROP TABLE notifications.cursors;
DROP TABLE notifications.preferences;
DROP TABLE notifications.mails;
DROP TABLE notifications.notices;
