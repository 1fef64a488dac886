//! Lists that nobody would think of when a table, a constraint or a resource comes: each is held against what there is, minus
//! a few that have a reason.

use std::collections::BTreeSet;

use virtualstack_proto::DESCRIPTOR_POOL;
use virtualstack_store::resources::ROWS;
use virtualstack_store::tenant_life::PURGED;
use virtualstack_store::tx::error::{Constraints, FOREIGN_KEYS, UNIQUE};

use crate::support::Database;
use crate::tenancy::calls::texts;

/// Tables with rows of tenants that a purge of the tenant does not empty, and why.
const NOT_PURGED: &[(&str, &str)] = &[
    ("audit.logs", "the audit log of a tenant outlives it"),
    (
        "compute.virtual_machines",
        "each is purged with what it has on the hypervisor, and the tenant only after the last",
    ),
    ("compute.snapshots", "they go with their VM"),
    ("compute.guest_customizations", "they go with their VM"),
    (
        "compute.user_templates",
        "each is deleted with its file and what it has on the hypervisor, and the tenant only after the last",
    ),
    ("compute.template_parts", "they go with their template"),
    ("compute.template_images", "they go with their template"),
];

/// Resources that have no row in `resources::ROWS`, and why.
const WITHOUT_ROW: &[(&str, &str)] = &[
    ("providerTemplates", "they are of no tenant; whether one may use them is told of templates"),
    ("notifications", "they belong to accounts, who see them all"),
    ("broadcasts", "they are of the provider, whose operators see them all"),
    ("users/notificationPreferences", "everybody has their own, and nobody another's"),
    ("sessions", "they belong to accounts and are looked for there"),
    ("tenants/tickets", "operators name a tenant's so, which are looked for within it"),
    ("tenants/tickets/attachments", "likewise"),
    ("tenants/tickets/comments", "likewise"),
];

/// Collections that have a row and no google.api.resource, and why.
const WITHOUT_RESOURCE: &[(&str, &str)] = &[("operations", "google.longrunning says what they are")];

/// Schemas that no call of a client writes into by itself.
const MACHINERY: &str = "('background_jobs', 'simulated_hypervisor')";

/// Unique indexes that no client runs into, and why. Those of our own ids are left out by what they are of.
const UNIQUE_UNTOLD: &[(&str, &str)] = &[
    ("api_keys_public_id_key", "made by us"),
    ("change_heads_pkey", "one a tenant, put by ON CONFLICT"),
    ("changes_pkey", "positions are given by the head, which is locked"),
    ("console_tickets_pkey", "one an operation, made by its worker"),
    ("invitations_digest_key", "of a token made by us"),
    ("invitations_open", "ON CONFLICT finds the one that is open"),
    ("password_resets_digest_key", "of a token made by us"),
    ("password_resets_pkey", "one an account, put by ON CONFLICT"),
    ("permissions_pkey", "put by ON CONFLICT, when the product starts"),
    ("guest_customizations_pkey", "one a VM, put in with it"),
    ("provider_template_copies_pkey", "put by ON CONFLICT, by the inventory"),
    ("provider_template_grants_pkey", "each tenant is put in once, while the template is locked"),
    ("provider_templates_identity", "put by ON CONFLICT, by the inventory"),
    ("template_images_pkey", "put by ON CONFLICT"),
    ("template_parts_object", "of a name made by us"),
    ("template_parts_pkey", "each piece begins where the one before ends, and the template is locked"),
    ("quotas_pkey", "made with the tenant"),
    ("rate_limits_pkey", "put by ON CONFLICT"),
    ("refresh_tokens_pkey", "of a token made by us"),
    ("retired_api_keys_public_id_key", "made by us"),
    ("request_ids_pkey", "ON CONFLICT finds the call before"),
    ("signing_keys_pkey", "made by us"),
    ("tenant_role_permissions_pkey", "put by ON CONFLICT"),
    ("user_tenant_roles_pkey", "put by ON CONFLICT"),
    ("broadcast_marks_pkey", "put by ON CONFLICT"),
    ("broadcasts_notice", "of an id made by us"),
    ("mails_of_broadcast", "put by ON CONFLICT"),
    ("desk_cursors_pkey", "put by ON CONFLICT"),
    ("desk_items_pkey", "put by ON CONFLICT"),
    ("desk_items_remote", "put by ON CONFLICT"),
    ("desk_tickets_pkey", "put by ON CONFLICT"),
    ("desk_tickets_remote", "of a number that the desk has made"),
    ("cursors_pkey", "put by ON CONFLICT"),
    ("notices_pkey", "of an id made by us"),
    ("notices_source", "put by ON CONFLICT"),
    ("preferences_pkey", "put by ON CONFLICT"),
    ("quota_marks_pkey", "put by ON CONFLICT"),
    ("ticket_staff_pkey", "put by ON CONFLICT"),
    ("ticket_usage_pkey", "put by ON CONFLICT"),
    ("tickets_number", "given by a row that is locked"),
    ("users_email_key", "put by ON CONFLICT: an address that is known is invited"),
];

/// Tables whose rows are never deleted while others refer to them, so that no client runs into a foreign key to them.
const ROWS_STAY: &[(&str, &str)] = &[
    ("iam.memberships", "who is taken out stays as REMOVED"),
    ("iam.tenants", "who is purged stays as PURGED"),
    ("iam.users", "accounts stay"),
    ("support.tickets", "they go with their tenant"),
];

/// Other foreign keys that no client runs into, and why.
const FOREIGN_KEYS_UNTOLD: &[(&str, &str)] = &[
    ("broadcast_marks_notice_id_fkey", "who marks one has locked it"),
    ("mails_notice_id_fkey", "it cascades"),
    ("console_tickets_tenant_id_operation_id_fkey", "it cascades"),
    ("guest_customizations_tenant_id_vm_id_fkey", "it cascades"),
    ("provider_template_copies_template_id_fkey", "templates of the provider are not deleted"),
    ("provider_template_grants_template_id_fkey", "templates of the provider are not deleted"),
    ("template_images_tenant_id_template_id_fkey", "it cascades"),
    ("template_parts_tenant_id_template_id_fkey", "it cascades"),
    ("refresh_tokens_session_id_fkey", "sessions are ended and not deleted"),
    ("sessions_parent_id_fkey", "it is set to null"),
    ("snapshots_tenant_id_vm_id_fkey", "a VM is removed with its snapshots, by the operation that holds it"),
    ("tenant_role_permissions_permission_fkey", "codes go when the product starts, out of the roles first"),
    ("tenant_role_permissions_tenant_id_role_id_fkey", "who changes a role has locked it"),
];

fn has(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(known, _)| *known == name)
}

fn names(list: &[(&'static str, &str)]) -> Vec<&'static str> {
    list.iter().map(|(name, _)| *name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_all_that_is_a_tenants() {
    let query = "SELECT table_schema || '.' || table_name FROM information_schema.columns JOIN information_schema.tables \
         USING (table_schema, table_name) WHERE column_name = 'tenant_id' AND table_type = 'BASE TABLE'";
    let found: BTreeSet<_> = texts(&Database::new().await, query).await.into_iter().collect();
    assert!(found.len() > 10, "{found:?}");
    for table in &found {
        assert_ne!(
            PURGED.contains(&table.as_str()),
            has(NOT_PURGED, table),
            "{table} has rows of tenants: put it into PURGED in crates/store/src/tenant_life.rs, before what it refers to, or \
             into NOT_PURGED in tests/schema/lists.rs with the reason why a purge leaves it, and not into both"
        );
    }
    for table in PURGED.iter().copied().chain(names(NOT_PURGED)) {
        assert!(found.contains(table), "{table} is gone, or has no tenant_id: take it out of PURGED or NOT_PURGED");
    }
}

/// "vms/{vm}/snapshots/{snapshot}" → "vms/snapshots".
fn collection(pattern: &str) -> String {
    pattern.split('/').filter(|segment| !segment.starts_with('{')).collect::<Vec<_>>().join("/")
}

#[test]
fn every_resource_can_be_looked_for() {
    let extension = DESCRIPTOR_POOL.get_extension_by_name("google.api.resource").expect("the option");
    let mut collections = BTreeSet::new();
    for message in DESCRIPTOR_POOL.all_messages() {
        let options = message.options();
        if !message.package_name().starts_with("virtualstack.") || !options.has_extension(&extension) {
            continue;
        }
        let resource = options.get_extension(&extension);
        let patterns = resource.as_message().expect("a resource").get_field_by_name("pattern").expect("a field");
        let patterns = patterns.as_list().expect("a list").iter().filter_map(|pattern| pattern.as_str());
        collections.extend(patterns.map(collection));
    }
    assert!(collections.len() >= 9, "{collections:?}");
    for collection in &collections {
        assert_ne!(
            ROWS.iter().any(|(known, _)| known == collection),
            has(WITHOUT_ROW, collection),
            "auth:explain does not find {collection}: put them into ROWS in crates/store/src/resources.rs, or into WITHOUT_ROW \
             in tests/schema/lists.rs with the reason why not, and not into both"
        );
    }
    for name in ROWS.iter().map(|(name, _)| *name).chain(names(WITHOUT_ROW)) {
        assert!(collections.contains(name) || has(WITHOUT_RESOURCE, name), "{name} is no resource of the contract");
    }
    for name in names(WITHOUT_RESOURCE) {
        assert!(!collections.contains(name), "{name} is a resource of the contract: take it out of WITHOUT_RESOURCE");
    }
}

fn told(constraints: Constraints, name: &str) -> bool {
    constraints.iter().any(|(known, _)| *known == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_constraint_that_clients_run_into_is_told() {
    let database = Database::new().await;
    // Ids are made by us, and no two are the same.
    let unique = format!(
        "SELECT index.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class index ON index.oid = i.indexrelid WHERE i.indisunique \
         AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public') AND n.nspname NOT IN {MACHINERY} \
         AND NOT (i.indpred IS NULL AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a \
            WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) IN ('{{id}}', '{{id,tenant_id}}'))"
    );
    let stay: Vec<_> = ROWS_STAY.iter().map(|(table, _)| format!("'{table}'::regclass")).collect();
    let foreign = format!(
        "SELECT k.conname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND n.nspname NOT IN {MACHINERY} AND k.confrelid NOT IN ({})",
        stay.join(", ")
    );
    for (kind, query, constraints, untold) in
        [("UNIQUE", unique, UNIQUE, UNIQUE_UNTOLD), ("FOREIGN_KEYS", foreign, FOREIGN_KEYS, FOREIGN_KEYS_UNTOLD)]
    {
        let found: BTreeSet<_> = texts(&database, &query).await.into_iter().collect();
        assert!(found.len() > 5, "{found:?}");
        for name in &found {
            assert_ne!(
                told(constraints, name),
                has(untold, name),
                "who runs into {name} gets an internal error: say what they are told in {kind} of crates/store/src/tx/error.rs, \
                 or in {kind}_UNTOLD of tests/schema/lists.rs why nobody does, and not in both"
            );
        }
        for name in constraints.iter().map(|(name, _)| *name).chain(names(untold)) {
            assert!(found.contains(name), "{name} is gone from the schema: take it out of {kind} or {kind}_UNTOLD");
        }
    }
}
