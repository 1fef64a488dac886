//! Templates that were imported, as the inventory shows them: whole, or half made.

use std::sync::Arc;

use virtualstack_model::compute::id::TemplateId;

use super::super::import::Imported;
use super::super::{Fault, TemplateRef};
use super::adapter::VCenter;
use super::faults::Error;
use super::import_faults::{foreign, held, of_call};
use super::marks::{MARKER, TEMPLATE_MARKER, marked};
use super::properties::Object;
use super::session::Session;
use super::soap::Call;
use super::tasks::started;
use super::xml::{ManagedRef, Xml};

const IMPORTED: [&str; 5] =
    ["name", "config.template", "config.instanceUuid", "config.guestFullName", "config.extraConfig"];

/// What was found of a template.
pub(super) enum Found {
    Whole(Made),
    /// Disks are missing, or nobody can tell.
    Half(Made),
    Absent,
}

/// A machine with the marker of a template.
pub(super) struct Made {
    pub(super) machine: ManagedRef,
    instance_uuid: String,
    guest_os: String,
}

impl Made {
    /// What is said of it when its import is done.
    pub(super) fn imported(self, guest_os: &str, warnings: Vec<String>) -> Imported {
        let guest_os = if self.guest_os.is_empty() { guest_os.to_owned() } else { self.guest_os };
        Imported { reference: TemplateRef(self.instance_uuid), guest_os, warnings }
    }
}

impl VCenter {
    /// Looks for a template by its instance UUID, which is its id or what we were told of it, and then by its name, which ends in
    /// its id. Something without its marker is in its place, and is not ours.
    pub(super) async fn find_imported(&self, id: TemplateId, known: Option<&TemplateRef>) -> Result<Found, Fault> {
        let (placement, folder) = self.survey().await?;
        let id = id.to_string();
        for uuid in [Some(id.as_str()), known.map(|known| known.0.as_str())].into_iter().flatten() {
            if let Some(machine) = self.session.by_instance_uuid(&placement.datacenter, uuid).await? {
                return self.session.examine(&machine, &id).await;
            }
        }
        let machines = self.session.list(&folder, "VirtualMachine", &["name"]).await?;
        let named = machines.into_iter().find(|machine| machine.text("name").is_some_and(|name| name.ends_with(&id)));
        match named {
            Some(machine) => self.session.examine(&machine.reference, &id).await,
            None => Ok(Found::Absent),
        }
    }

    /// Destroys what is half made, and awaits it.
    pub(super) async fn destroy_half(&self, half: &Made) -> Result<(), Fault> {
        let destroyed = async {
            let task = started(&self.change(&Call::change("Destroy_Task", &half.machine, Xml::new())).await?)?;
            self.session.result_of(&task).await
        };
        match destroyed.await {
            Err(error) if error.is("ManagedObjectNotFound") => Ok(()),
            // A lease that nobody can end any more ends by itself, and takes it along.
            Err(Error::Vim(fault)) => Err(held(format_args!("{}: {fault}", half.machine.id))),
            outcome => outcome.map(drop).map_err(of_call),
        }
    }
}

impl Session {
    async fn examine(self: &Arc<Self>, machine: &ManagedRef, id: &str) -> Result<Found, Fault> {
        let Some(object) = self.read(machine, &IMPORTED).await? else { return Ok(Found::Absent) };
        if machine.kind == "VirtualMachine" && object.get("config.template").is_none() {
            return Err(held(format_args!("{} is being made", machine.id)));
        }
        if !is_ours(&object, id) {
            return Err(foreign(object.text("name").unwrap_or(&machine.id)));
        }
        let text = |name: &str| object.text(name).unwrap_or_default().to_owned();
        let made = Made {
            machine: machine.clone(),
            instance_uuid: text("config.instanceUuid"),
            guest_os: text("config.guestFullName"),
        };
        Ok(if object.text("config.template") == Some("true") { Found::Whole(made) } else { Found::Half(made) })
    }
}

/// Whether a machine carries the marker of a template. A VM that was made from it inherits the marker, and has its own besides.
fn is_ours(machine: &Object, id: &str) -> bool {
    marked(machine, TEMPLATE_MARKER) == id && marked(machine, MARKER).is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::xml::Element;
    use super::*;

    #[test]
    fn a_vm_that_was_made_from_a_template_is_not_taken_for_it() {
        let with = |marks: &[(&str, &str)]| {
            let entry = |(key, value): &(&str, &str)| {
                format!("<OptionValue><key>{key}</key><value>{value}</value></OptionValue>")
            };
            let extra: String = marks.iter().map(entry).collect();
            let text = format!(
                "<objects><obj type=\"VirtualMachine\">vm-1</obj><propSet><name>config.extraConfig</name>\
                 <val>{extra}</val></propSet></objects>"
            );
            Object::from_element(&Element::parse(&text).expect("well-formed")).expect("an object")
        };
        assert!(is_ours(&with(&[(TEMPLATE_MARKER, "t-1")]), "t-1"));
        assert!(!is_ours(&with(&[(TEMPLATE_MARKER, "t-1"), (MARKER, "vm")]), "t-1"));
        assert!(!is_ours(&with(&[(TEMPLATE_MARKER, "t-2")]), "t-1"));
        assert!(!is_ours(&with(&[]), "t-1"));
    }
}
