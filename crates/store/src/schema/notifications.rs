//! Tables of notifications.

use diesel::table;

table! {
    notifications.notices (account_id, id) {
        account_id -> Uuid,
        id -> Uuid,
        tenant_id -> Uuid,
        user_id -> Uuid,
        kind -> Text,
        source -> Text,
        title -> Text,
        body -> Text,
        severity -> Text,
        resource -> Text,
        created_at -> Timestamptz,
        read_at -> Nullable<Timestamptz>,
        dismissed_at -> Nullable<Timestamptz>,
    }
}

table! {
    notifications.cursors (tenant_id) {
        tenant_id -> Uuid,
        position -> BigInt,
    }
}

table! {
    notifications.quota_marks (tenant_id, amount) {
        tenant_id -> Uuid,
        amount -> Text,
        since -> Timestamptz,
    }
}
