-- Templates of tenants, with their files; and the provider's, as one for all hypervisors, granted to tenants.
--
-- Expand and contract in one: workers of the release before publish templates into columns that go here. Stop them first.

-- What a hypervisor has of a template of the provider's.
CREATE TABLE compute.provider_template_copies (
    hypervisor text NOT NULL,
    -- How the hypervisor refers to it.
    reference text NOT NULL,
    template_id uuid NOT NULL REFERENCES compute.provider_templates,
    state text NOT NULL CHECK (state IN ('READY', 'UNAVAILABLE')),
    cpu_count integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_gib integer NOT NULL,
    further_disk_gib integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hypervisor, reference)
);
CREATE INDEX provider_template_copies_by_template ON compute.provider_template_copies (template_id);
CALL iam.shared_table('compute.provider_template_copies');
CALL iam.system_policy('compute.provider_template_copies', 'SELECT, INSERT, UPDATE, DELETE');

ALTER TABLE compute.provider_templates NO FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.provider_template_copies NO FORCE ROW LEVEL SECURITY;
-- Those of one name, kind and guest are one: the first that was seen. VMs keep the ids of the others.
WITH ranked AS (
    SELECT *, first_value(id) OVER (PARTITION BY display_name, kind, guest_os ORDER BY created_at, id) AS first
    FROM compute.provider_templates
)
INSERT INTO compute.provider_template_copies
    (hypervisor, reference, template_id, state, cpu_count, memory_mib, disk_gib, updated_at)
SELECT hypervisor, reference, first, state, cpu_count, memory_mib, disk_gib, updated_at FROM ranked;
DELETE FROM compute.provider_templates t
WHERE NOT EXISTS (SELECT FROM compute.provider_template_copies c WHERE c.template_id = t.id);
UPDATE compute.provider_templates t SET (state, cpu_count, memory_mib, disk_gib) =
    (SELECT min(state), max(cpu_count), max(memory_mib), max(disk_gib)
     FROM compute.provider_template_copies c WHERE c.template_id = t.id);
ALTER TABLE compute.provider_template_copies FORCE ROW LEVEL SECURITY;
ALTER TABLE compute.provider_templates FORCE ROW LEVEL SECURITY;

ALTER TABLE compute.provider_templates
    DROP COLUMN reference,
    DROP COLUMN hypervisor,
    ADD COLUMN further_disk_gib integer NOT NULL DEFAULT 0,
    -- Who may use it: every tenant, or those that it was granted to.
    ADD COLUMN audience text NOT NULL DEFAULT 'ALL' CHECK (audience IN ('ALL', 'TENANTS')),
    -- Raised by each change; what the etag is made of.
    ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE UNIQUE INDEX provider_templates_identity ON compute.provider_templates (display_name, kind, guest_os);

CREATE TABLE compute.provider_template_grants (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    template_id uuid NOT NULL REFERENCES compute.provider_templates,
    PRIMARY KEY (tenant_id, template_id)
);
CREATE INDEX provider_template_grants_by_template ON compute.provider_template_grants (template_id);
CALL iam.tenant_table('compute.provider_template_grants', 'SELECT');
CALL iam.system_policy('compute.provider_template_grants', 'SELECT, INSERT, DELETE');

-- No longer for all: a tenant sees what is for all, and what was granted to it.
DROP POLICY shared ON compute.provider_templates;
CREATE POLICY granted ON compute.provider_templates FOR SELECT TO virtualstack_tenant USING (
    audience = 'ALL'
    OR id IN (SELECT template_id FROM compute.provider_template_grants WHERE tenant_id = (SELECT iam.current_tenant()))
);
REVOKE SELECT ON compute.provider_templates FROM virtualstack_account;
COMMENT ON TABLE compute.provider_templates IS 'class: granted';

-- A tenant's own.
CREATE TABLE compute.user_templates (
    tenant_id uuid NOT NULL REFERENCES iam.tenants,
    id uuid NOT NULL,
    display_name text NOT NULL,
    -- What makes two names the same: trimmed, case-folded, NFKC.
    name_key text NOT NULL,
    description text NOT NULL,
    labels jsonb NOT NULL,
    kind text NOT NULL CHECK (kind IN ('OVA', 'ISO')),
    state text NOT NULL CHECK (state IN ('UPLOADING', 'VALIDATING', 'IMPORTING', 'READY', 'FAILED', 'DELETING')),
    state_reason text NOT NULL DEFAULT '',
    guest_os text NOT NULL DEFAULT '',
    cpu_count integer NOT NULL DEFAULT 0,
    memory_mib integer NOT NULL DEFAULT 0,
    disk_gib integer NOT NULL DEFAULT 0,
    further_disk_gib integer NOT NULL DEFAULT 0,
    -- Size of the file, 0 until it is known, and how much of it is there.
    size_bytes bigint NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
    uploaded_bytes bigint NOT NULL DEFAULT 0 CHECK (uploaded_bytes >= 0),
    sha256 text NOT NULL DEFAULT '',
    upload_expires_at timestamptz,
    owner_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Raised by each change; what the etag is made of.
    version bigint NOT NULL DEFAULT 1,
    -- Where it was imported to, and how that refers to it. Empty until then.
    hypervisor text NOT NULL DEFAULT '',
    reference text NOT NULL DEFAULT '',
    -- Who writes its file now, and until when that holds unless it is renewed.
    upload_token uuid,
    upload_until timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, owner_id) REFERENCES iam.memberships
);
CREATE UNIQUE INDEX user_templates_name_key ON compute.user_templates (tenant_id, name_key);
CREATE INDEX user_templates_expiring ON compute.user_templates (upload_expires_at) WHERE state = 'UPLOADING';
CALL iam.tenant_table('compute.user_templates');
CALL iam.system_policy('compute.user_templates', 'SELECT');

-- The pieces of a file, each an object of its own in the object store.
CREATE TABLE compute.template_parts (
    tenant_id uuid NOT NULL,
    template_id uuid NOT NULL,
    first_byte bigint NOT NULL CHECK (first_byte >= 0),
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    object text NOT NULL,
    PRIMARY KEY (tenant_id, template_id, first_byte),
    FOREIGN KEY (tenant_id, template_id) REFERENCES compute.user_templates ON DELETE CASCADE
);
CREATE UNIQUE INDEX template_parts_object ON compute.template_parts (object);
CALL iam.tenant_table('compute.template_parts', 'SELECT, INSERT, DELETE');
CALL iam.system_policy('compute.template_parts', 'SELECT');

-- What was found in a file that is in order: what an import goes by, now and on another hypervisor later.
CREATE TABLE compute.template_images (
    tenant_id uuid NOT NULL,
    template_id uuid NOT NULL,
    image jsonb NOT NULL,
    PRIMARY KEY (tenant_id, template_id),
    FOREIGN KEY (tenant_id, template_id) REFERENCES compute.user_templates ON DELETE CASCADE
);
CALL iam.tenant_table('compute.template_images');

-- All that a tenant can make VMs from. A provider's template is made on the first hypervisor that has it.
CREATE VIEW compute.templates WITH (security_invoker = true) AS
SELECT
    t.id, NULL::uuid AS tenant_id, t.display_name, '' AS description, '{}'::jsonb AS labels, t.kind, 'PROVIDER' AS scope,
    t.state, '' AS state_reason, t.guest_os, t.cpu_count, t.memory_mib, t.disk_gib, t.further_disk_gib,
    0::bigint AS size_bytes, 0::bigint AS uploaded_bytes, '' AS sha256, NULL::timestamptz AS upload_expires_at,
    NULL::uuid AS owner_id, t.created_at, t.updated_at, t.version,
    coalesce(c.hypervisor, '') AS hypervisor, coalesce(c.reference, '') AS reference
FROM compute.provider_templates t
LEFT JOIN LATERAL (
    SELECT hypervisor, reference FROM compute.provider_template_copies
    WHERE template_id = t.id AND state = 'READY' ORDER BY hypervisor, reference LIMIT 1
) c ON true
UNION ALL
SELECT
    id, tenant_id, display_name, description, labels, kind, 'TENANT', state, state_reason, guest_os, cpu_count, memory_mib,
    disk_gib, further_disk_gib, size_bytes, uploaded_bytes, sha256, upload_expires_at, owner_id, created_at, updated_at, version,
    hypervisor, reference
FROM compute.user_templates;
GRANT SELECT ON compute.templates TO virtualstack_tenant;

ALTER TABLE compute.virtual_machines
    -- What its further disks have together: they come as the template has them, and count as the first one does.
    ADD COLUMN further_disk_gib integer NOT NULL DEFAULT 0 CHECK (further_disk_gib >= 0);

-- What a guest is told at its first boot, sealed, until its VM is made.
CREATE TABLE compute.guest_customizations (
    tenant_id uuid NOT NULL,
    vm_id uuid NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant_id, vm_id),
    FOREIGN KEY (tenant_id, vm_id) REFERENCES compute.virtual_machines ON DELETE CASCADE
);
CALL iam.tenant_table('compute.guest_customizations', 'SELECT, INSERT, DELETE');

ALTER TABLE compute.operations
    -- What is known of a failure beside its message: what was checked, where, what was expected and found.
    ADD COLUMN error_details jsonb;

-- A VM that is being created from a template keeps it from being deleted.
CREATE INDEX virtual_machines_provisioning ON compute.virtual_machines (tenant_id, template_id) WHERE state = 'PROVISIONING';
