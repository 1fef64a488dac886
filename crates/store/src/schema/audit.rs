//! The two logs.

use diesel::table;

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
        count -> BigInt,
        last_time -> Nullable<Timestamptz>,
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
        changed_at -> Nullable<Timestamptz>,
    }
}
