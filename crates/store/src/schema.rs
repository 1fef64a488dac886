//! The tables as diesel sees them. A test holds this equal to the migrated database.

#![expect(missing_docs, reason = "the migrations say what columns are")]

use diesel::table;

table! {
    iam.tenants (id) {
        id -> Uuid,
        slug -> Text,
        display_name -> Text,
        state -> Text,
        authz_epoch -> BigInt,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        settings -> Jsonb,
        deleted_at -> Nullable<Timestamptz>,
        purge_at -> Nullable<Timestamptz>,
        undelete_state -> Nullable<Text>,
        version -> BigInt,
    }
}

table! {
    iam.permissions (code) {
        code -> Text,
        title -> Text,
        description -> Text,
        module -> Text,
    }
}

table! {
    iam.users (id) {
        id -> Uuid,
        email -> Text,
        display_name -> Text,
        password_hash -> Nullable<Text>,
        state -> Text,
        last_tenant_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

table! {
    iam.memberships (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        account_id -> Uuid,
        state -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        email -> Text,
        display_name -> Text,
        activates_at_login -> Bool,
        deactivated_invited -> Bool,
        version -> BigInt,
    }
}

table! {
    iam.tenant_roles (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        display_name -> Text,
        description -> Text,
        system -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
    }
}

table! {
    iam.tenant_role_permissions (tenant_id, role_id, permission) {
        tenant_id -> Uuid,
        role_id -> Uuid,
        permission -> Text,
    }
}

table! {
    iam.user_tenant_roles (tenant_id, membership_id, role_id) {
        tenant_id -> Uuid,
        membership_id -> Uuid,
        role_id -> Uuid,
    }
}

table! {
    iam.sessions (id) {
        id -> Uuid,
        account_id -> Uuid,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        client_address -> Nullable<Inet>,
        support_tenant_id -> Nullable<Uuid>,
        support_reason -> Nullable<Text>,
        parent_id -> Nullable<Uuid>,
    }
}

table! {
    iam.refresh_tokens (digest) {
        digest -> Bytea,
        session_id -> Uuid,
        tenant_id -> Uuid,
        created_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
        used_from -> Nullable<Inet>,
        repeated -> Bool,
    }
}

table! {
    iam.api_keys (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        owner_id -> Uuid,
        display_name -> Text,
        public_id -> Text,
        permissions -> Array<Text>,
        allowed_cidrs -> Array<Cidr>,
        digest -> Bytea,
        generation -> Integer,
        previous_digest -> Nullable<Bytea>,
        previous_expires_at -> Nullable<Timestamptz>,
        expires_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
        last_used_from -> Nullable<Inet>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
    }
}

table! {
    iam.invitations (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        email -> Text,
        role_id -> Nullable<Uuid>,
        user_id -> Nullable<Uuid>,
        state -> Text,
        digest -> Nullable<Bytea>,
        inviter_id -> Nullable<Uuid>,
        expires_at -> Timestamptz,
        sent_at -> Nullable<Timestamptz>,
        accepted_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

table! {
    iam.password_resets (account_id) {
        account_id -> Uuid,
        digest -> Bytea,
        expires_at -> Timestamptz,
    }
}

table! {
    iam.signing_keys (kid) {
        kid -> Text,
        public_key -> Bytea,
        sealed_key -> Bytea,
        created_at -> Timestamptz,
        retired_at -> Nullable<Timestamptz>,
    }
}

table! {
    iam.rate_limits (key) {
        key -> Bytea,
        full_at -> Timestamptz,
    }
}

table! {
    iam.request_ids (tenant_id, account_id, request_id) {
        tenant_id -> Uuid,
        account_id -> Uuid,
        request_id -> Uuid,
        method -> Text,
        body_digest -> Bytea,
        resource -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    audit.logs (id) {
        id -> Uuid,
        tenant_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        action -> Text,
        actor -> Text,
        account_id -> Nullable<Uuid>,
        session_id -> Nullable<Uuid>,
        resource -> Text,
        request_id -> Text,
        client_address -> Nullable<Inet>,
        fields -> Jsonb,
        credential -> Text,
        support_reason -> Nullable<Text>,
        result -> Text,
        reason -> Text,
    }
}

table! {
    audit.changes (tenant_id, position) {
        tenant_id -> Uuid,
        position -> BigInt,
        created_at -> Timestamptz,
        resource -> Text,
        reason -> Text,
        message -> Text,
        state -> Text,
        operation_id -> Nullable<Uuid>,
        actor -> Text,
        fields -> Jsonb,
        kind -> Nullable<Text>,
        after -> Nullable<Jsonb>,
    }
}

table! {
    audit.change_heads (tenant_id) {
        tenant_id -> Uuid,
        position -> BigInt,
    }
}

table! {
    compute.provider_templates (id) {
        id -> Uuid,
        reference -> Text,
        display_name -> Text,
        kind -> Text,
        state -> Text,
        guest_os -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        hypervisor -> Text,
    }
}

table! {
    compute.virtual_machines (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        display_name -> Text,
        description -> Text,
        state -> Text,
        state_reason -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        template_id -> Uuid,
        template_reference -> Text,
        template_display_name -> Text,
        guest_os -> Text,
        ip_addresses -> Array<Text>,
        labels -> Jsonb,
        owner_id -> Uuid,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        observed_at -> Nullable<Timestamptz>,
        observed_power_state -> Nullable<Text>,
        deleted_at -> Nullable<Timestamptz>,
        purge_at -> Nullable<Timestamptz>,
        version -> BigInt,
        template_kind -> Text,
        hypervisor -> Text,
        wanted_cpu_count -> Nullable<Integer>,
        wanted_memory_mib -> Nullable<Integer>,
        wanted_disk_gib -> Nullable<Integer>,
        occupies -> Bool,
    }
}

table! {
    compute.operations (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        verb -> Text,
        state -> Text,
        vm_id -> Uuid,
        job_id -> Nullable<Uuid>,
        step -> Text,
        progress_percent -> Integer,
        cancel_requested -> Bool,
        error_code -> Nullable<Integer>,
        error_reason -> Nullable<Text>,
        error_message -> Nullable<Text>,
        tombstone -> Nullable<Jsonb>,
        actor -> Text,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        snapshot_id -> Nullable<Uuid>,
        deadline_at -> Timestamptz,
        grace_from -> Nullable<Timestamptz>,
    }
}

table! {
    compute.quotas (tenant_id) {
        tenant_id -> Uuid,
        max_vms -> Nullable<BigInt>,
        max_vcpus -> Nullable<BigInt>,
        max_memory_mib -> Nullable<BigInt>,
        max_disk_gib -> Nullable<BigInt>,
        max_snapshots -> Nullable<BigInt>,
        max_templates -> Nullable<BigInt>,
        max_template_bytes -> Nullable<BigInt>,
        vms -> BigInt,
        vcpus -> BigInt,
        memory_mib -> BigInt,
        disk_gib -> BigInt,
        snapshots -> BigInt,
        templates -> BigInt,
        template_bytes -> BigInt,
        updated_at -> Timestamptz,
        version -> BigInt,
    }
}

table! {
    compute.snapshots (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        vm_id -> Uuid,
        display_name -> Text,
        description -> Text,
        state -> Text,
        state_reason -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        creator -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
    }
}

table! {
    compute.console_tickets (tenant_id, operation_id) {
        tenant_id -> Uuid,
        operation_id -> Uuid,
        sealed_ticket -> Bytea,
        expires_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    tenants,
    users,
    memberships,
    tenant_roles,
    tenant_role_permissions,
    user_tenant_roles,
    sessions,
    refresh_tokens,
);
