//! Tables of identity and access.

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
        roles -> Array<Text>,
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
        name_key -> Nullable<Text>,
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
        sealed_token -> Nullable<Bytea>,
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

table! {
    iam.retired_api_keys (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        public_id -> Text,
        created_at -> Timestamptz,
    }
}
