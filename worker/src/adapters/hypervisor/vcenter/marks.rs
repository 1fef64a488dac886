//! What says on the vCenter whose a VM is: a marker in its extraConfig, and a name that ends in its id.

use std::fmt::Display;

use super::super::VmSpec;
use super::super::import::ImportSpec;
use super::properties::Object;
use super::xml::Xml;

/// The extraConfig key that says whose VM it is. A clone inherits its source's, so it counts only with our id in it.
pub(super) const MARKER: &str = "virtualstack.vmId";
/// The same of an imported template. A clone inherits it too, beside its own marker.
pub(super) const TEMPLATE_MARKER: &str = "virtualstack.templateId";
/// vCenter's limit on names.
const MAX_NAME: usize = 80;

/// The name on the vCenter: readable, and different for each VM.
pub(super) fn name_of(spec: &VmSpec) -> String {
    name_with(&spec.display_name, spec.id)
}

/// A name for people that ends in an id, by which we find it again.
pub(super) fn name_with(display_name: &str, id: impl Display) -> String {
    let id = id.to_string();
    let readable = display_name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
    format!("{}-{id}", readable.take(MAX_NAME.saturating_sub(1 + id.len())).collect::<String>())
}

/// The part of a `VirtualMachineConfigSpec` that says whose the VM is.
pub(super) fn marks(spec: &VmSpec) -> Xml {
    Xml::new()
        .option("extraConfig", MARKER, spec.id)
        .option("extraConfig", "virtualstack.operationId", spec.operation)
        .option("extraConfig", "virtualstack.tenantId", spec.tenant)
}

/// The extraConfig keys and values that say whose an imported template is.
pub(super) fn template_marks(spec: &ImportSpec) -> [(&'static str, String); 3] {
    [
        (TEMPLATE_MARKER, spec.id.to_string()),
        ("virtualstack.operationId", spec.operation.to_string()),
        ("virtualstack.tenantId", spec.tenant.to_string()),
    ]
}

/// Whether a template was imported, for whatever tenant. One that was made of a VM has the VM's marker, too.
pub(super) fn is_imported(template: &Object) -> bool {
    !marked(template, TEMPLATE_MARKER).is_empty() && marked(template, MARKER).is_empty()
}

/// The value of a marker; empty where there is none.
pub(super) fn marked<'a>(machine: &'a Object, key: &str) -> &'a str {
    let entries = machine.get("config.extraConfig").map(|extra| extra.children.as_slice()).unwrap_or_default();
    let entry = entries.iter().find(|entry| entry.text_at("key") == Some(key));
    entry.and_then(|entry| entry.text_at("value")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use virtualstack_model::compute::id::VmId;
    use virtualstack_model::compute::template::TemplateKind;
    use virtualstack_model::compute::vm::Size;
    use virtualstack_model::id::{OperationId, TenantId};

    use super::super::super::TemplateRef;
    use super::*;

    #[test]
    fn a_name_is_readable_unique_and_short_enough() {
        let spec = |display_name: &str| VmSpec {
            id: VmId::new(),
            tenant: TenantId::new(),
            operation: OperationId::new(),
            display_name: display_name.to_owned(),
            template: TemplateRef(String::new()),
            kind: TemplateKind::Ova,
            size: Size { cpu_count: 1, memory_mib: 1024, disk_gib: 10 },
            customization: None,
        };
        let (one, other) = (spec("web/1%"), spec(&"x".repeat(200)));
        assert_eq!(name_of(&one), format!("web-1--{}", one.id));
        assert_eq!(name_of(&other).len(), MAX_NAME);
        assert!(name_of(&other).ends_with(&other.id.to_string()));
    }
}
