DROP INDEX audit.changes_activated_broadcasts;
