DROP VIEW support.all_comments;
DROP TABLE support.internal_comments;
DROP TABLE support.ticket_staff;
DROP TABLE support.ticket_comments;
DROP TABLE support.tickets;
DROP TABLE support.ticket_usage;
