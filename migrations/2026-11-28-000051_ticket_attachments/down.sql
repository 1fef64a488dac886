ALTER TABLE support.ticket_usage DROP COLUMN attachment_bytes;
DROP VIEW support.all_attachments;
DROP TABLE support.internal_attachments;
DROP TABLE support.ticket_attachments;
