-- How many broadcasts a tenant has activated of late.
CREATE INDEX changes_activated_broadcasts ON audit.changes (tenant_id, created_at) WHERE reason = 'BROADCAST_ACTIVATED';
