//! Tables of tickets.

use diesel::table;

table! {
    support.ticket_usage (tenant_id) {
        tenant_id -> Uuid,
        last_number -> Integer,
        open_tickets -> Integer,
        attachment_bytes -> BigInt,
    }
}

table! {
    support.tickets (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        number -> Integer,
        subject -> Text,
        description -> Text,
        category -> Text,
        priority -> Text,
        state -> Text,
        requester_id -> Uuid,
        assignee_name -> Text,
        vm_id -> Nullable<Uuid>,
        operation_id -> Nullable<Uuid>,
        facts -> Jsonb,
        comment_count -> Integer,
        desk_state -> Text,
        desk_ticket -> Text,
        desk_synced_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        resolved_at -> Nullable<Timestamptz>,
        closed_at -> Nullable<Timestamptz>,
        version -> BigInt,
        desk_version -> BigInt,
    }
}

table! {
    support.ticket_comments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        author_id -> Nullable<Uuid>,
        author_name -> Text,
        body -> Text,
        source -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    support.ticket_staff (tenant_id, ticket_id) {
        tenant_id -> Uuid,
        ticket_id -> Uuid,
        assignee_id -> Nullable<Uuid>,
        internal_comments -> Integer,
        desk_error -> Text,
        version -> BigInt,
        unsent -> Integer,
    }
}

table! {
    support.internal_comments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        author_name -> Text,
        body -> Text,
        source -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    support.all_comments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        author_id -> Nullable<Uuid>,
        author_name -> Text,
        body -> Text,
        internal -> Bool,
        source -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    support.ticket_attachments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        file_name -> Text,
        size_bytes -> BigInt,
        content_type -> Text,
        sha256 -> Text,
        author_id -> Nullable<Uuid>,
        author_name -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    support.internal_attachments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        file_name -> Text,
        size_bytes -> BigInt,
        content_type -> Text,
        sha256 -> Text,
        author_name -> Text,
        created_at -> Timestamptz,
    }
}

table! {
    support.all_attachments (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        file_name -> Text,
        size_bytes -> BigInt,
        content_type -> Text,
        sha256 -> Text,
        author_id -> Nullable<Uuid>,
        author_name -> Text,
        internal -> Bool,
        created_at -> Timestamptz,
    }
}

table! {
    support.desk_tickets (tenant_id, ticket_id, desk) {
        tenant_id -> Uuid,
        ticket_id -> Uuid,
        desk -> Text,
        remote_id -> Nullable<Text>,
        open_try -> Bool,
        begun_at -> Timestamptz,
        state -> Text,
        remote_state -> Text,
        priority -> Text,
        subject -> Text,
        description -> Text,
        retry_at -> Nullable<Timestamptz>,
        attempts -> Integer,
        remote_updated_at -> Nullable<Timestamptz>,
        deleted -> Bool,
        read_at -> Nullable<Timestamptz>,
        read_failures -> Integer,
    }
}

table! {
    support.desk_items (tenant_id, id, desk) {
        tenant_id -> Uuid,
        id -> Uuid,
        ticket_id -> Uuid,
        desk -> Text,
        remote_id -> Nullable<Text>,
    }
}

table! {
    support.desk_cursors (desk) {
        desk -> Text,
        read_until -> Timestamptz,
        polled_at -> Timestamptz,
        asked_at -> Nullable<Timestamptz>,
        cut -> Bool,
    }
}

diesel::allow_tables_to_appear_in_same_query!(tickets, ticket_staff);
