//! Tables of VMs and templates, and what belongs to them.

use diesel::table;

table! {
    compute.provider_templates (id) {
        id -> Uuid,
        display_name -> Text,
        kind -> Text,
        state -> Text,
        guest_os -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        further_disk_gib -> Integer,
        audience -> Text,
        version -> BigInt,
    }
}

table! {
    compute.provider_template_copies (hypervisor, reference) {
        hypervisor -> Text,
        reference -> Text,
        template_id -> Uuid,
        state -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        further_disk_gib -> Integer,
        updated_at -> Timestamptz,
    }
}

table! {
    compute.provider_template_grants (tenant_id, template_id) {
        tenant_id -> Uuid,
        template_id -> Uuid,
    }
}

table! {
    compute.user_templates (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        display_name -> Text,
        name_key -> Text,
        description -> Text,
        labels -> Jsonb,
        kind -> Text,
        state -> Text,
        state_reason -> Text,
        guest_os -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        further_disk_gib -> Integer,
        size_bytes -> BigInt,
        uploaded_bytes -> BigInt,
        sha256 -> Text,
        upload_expires_at -> Nullable<Timestamptz>,
        owner_id -> Uuid,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
        hypervisor -> Text,
        reference -> Text,
        upload_token -> Nullable<Uuid>,
        upload_until -> Nullable<Timestamptz>,
    }
}

table! {
    compute.template_parts (tenant_id, template_id, first_byte) {
        tenant_id -> Uuid,
        template_id -> Uuid,
        first_byte -> BigInt,
        size_bytes -> BigInt,
        object -> Text,
    }
}

table! {
    compute.template_images (tenant_id, template_id) {
        tenant_id -> Uuid,
        template_id -> Uuid,
        image -> Jsonb,
    }
}

table! {
    compute.guest_customizations (tenant_id, vm_id) {
        tenant_id -> Uuid,
        vm_id -> Uuid,
        sealed -> Bytea,
    }
}

table! {
    compute.templates (id) {
        id -> Uuid,
        tenant_id -> Nullable<Uuid>,
        display_name -> Text,
        description -> Text,
        labels -> Jsonb,
        kind -> Text,
        scope -> Text,
        state -> Text,
        state_reason -> Text,
        guest_os -> Text,
        cpu_count -> Integer,
        memory_mib -> Integer,
        disk_gib -> Integer,
        further_disk_gib -> Integer,
        size_bytes -> BigInt,
        uploaded_bytes -> BigInt,
        sha256 -> Text,
        upload_expires_at -> Nullable<Timestamptz>,
        owner_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> BigInt,
        hypervisor -> Text,
        reference -> Text,
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
        desired_cpu_count -> Nullable<Integer>,
        desired_memory_mib -> Nullable<Integer>,
        desired_disk_gib -> Nullable<Integer>,
        counted -> Bool,
        further_disk_gib -> Integer,
    }
}

table! {
    compute.operations (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        verb -> Text,
        state -> Text,
        target -> Text,
        slot -> Nullable<Text>,
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
        deadline_at -> Timestamptz,
        grace_from -> Nullable<Timestamptz>,
        error_details -> Nullable<Jsonb>,
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
