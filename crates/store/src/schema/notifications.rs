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
        in_app -> Bool,
        read_at -> Nullable<Timestamptz>,
        dismissed_at -> Nullable<Timestamptz>,
        mail_due -> Bool,
        mail_id -> Nullable<Uuid>,
    }
}

table! {
    notifications.mails (id) {
        id -> Uuid,
        tenant_id -> Uuid,
        user_id -> Uuid,
        kind -> Text,
        created_at -> Timestamptz,
        sent_at -> Nullable<Timestamptz>,
    }
}

table! {
    notifications.preferences (tenant_id, user_id) {
        tenant_id -> Uuid,
        user_id -> Uuid,
        account_id -> Uuid,
        language -> Text,
        not_in_app -> Array<Text>,
        not_by_mail -> Array<Text>,
        version -> BigInt,
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
