//! Tables of VMs and what belongs to them.

use diesel::table;

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
        desired_cpu_count -> Nullable<Integer>,
        desired_memory_mib -> Nullable<Integer>,
        desired_disk_gib -> Nullable<Integer>,
        counted -> Bool,
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
