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
        notice_id -> Nullable<Uuid>,
        account_id -> Nullable<Uuid>,
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

table! {
    notifications.broadcasts (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        platform -> Bool,
        title -> Text,
        body -> Text,
        severity -> Text,
        link -> Text,
        audience -> Text,
        audience_ids -> Array<Uuid>,
        audience_roles -> Array<Text>,
        start_time -> Nullable<Timestamptz>,
        end_time -> Nullable<Timestamptz>,
        active -> Bool,
        dismissible -> Bool,
        require_acknowledgement -> Bool,
        by_mail -> Bool,
        notice_id -> Nullable<Uuid>,
        told_at -> Nullable<Timestamptz>,
        mailed_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
    }
}

table! {
    notifications.broadcast_marks (notice_id, user_id) {
        notice_id -> Uuid,
        user_id -> Uuid,
        tenant_id -> Uuid,
        account_id -> Uuid,
        read_at -> Nullable<Timestamptz>,
        dismissed_at -> Nullable<Timestamptz>,
    }
}

table! {
    notifications.told (user_id, id) {
        account_id -> Uuid,
        tenant_id -> Uuid,
        user_id -> Uuid,
        id -> Uuid,
        kind -> Text,
        title -> Text,
        body -> Text,
        severity -> Text,
        resource -> Text,
        link -> Text,
        created_at -> Timestamptz,
        read_at -> Nullable<Timestamptz>,
        dismissed_at -> Nullable<Timestamptz>,
        dismissible -> Bool,
        require_acknowledgement -> Bool,
    }
}
