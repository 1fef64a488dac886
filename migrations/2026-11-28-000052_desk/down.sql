DROP TABLE support.desk_cursors;
DROP TABLE support.desk_items;
DROP TABLE support.desk_tickets;
ALTER TABLE support.ticket_staff DROP COLUMN unsent;
REVOKE UPDATE (desk_version, desk_state, desk_ticket, desk_synced_at) ON support.tickets FROM virtualstack_system;
ALTER TABLE support.tickets DROP COLUMN desk_version;
