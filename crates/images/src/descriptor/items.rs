//! Items of the hardware, and which of them count.

use std::collections::HashMap;

use super::tree::{Element, Tree, text_of};
use crate::check::Check;

/// A device, or a quantity of something.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) element: Element<'a>,
    pub(super) id: &'a str,
    /// `CIM_ResourceAllocationSettingData.ResourceType`.
    pub(super) kind: u16,
}

impl<'a> Item<'a> {
    /// A property, such as "Parent".
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        text_of(self.element, name)
    }

    /// Whether disks can hang on it: IDE, SCSI, or another such as SATA.
    pub(super) fn is_controller(&self) -> bool {
        matches!(self.kind, 5 | 6 | 20)
    }
}

/// The items that count when nobody chooses a configuration. One of a configuration replaces the one with the same InstanceID.
pub(super) fn read<'a>(tree: &mut Tree<'a, '_>, section: Element<'a>) -> Vec<Item<'a>> {
    let default = default_configuration(tree);
    let mut items: Vec<Item<'a>> = Vec::new();
    let mut by_id: HashMap<&str, (usize, bool)> = HashMap::new();
    let elements = ["Item", "StorageItem", "EthernetPortItem"];
    let elements: Vec<_> =
        section.children().filter(|child| elements.iter().any(|name| tree.is(*child, name))).collect();
    for element in elements {
        let configuration = tree.attribute(element, "configuration");
        let is_chosen = configuration.is_none_or(|ids| ids.split_ascii_whitespace().any(|id| Some(id) == default));
        // Bounds of what somebody may choose have the InstanceID of the item that they bound.
        let counts = is_chosen && !matches!(tree.attribute(element, "bound"), Some("min" | "max"));
        if !counts {
            continue;
        }
        let Some(item) = item(tree, element) else { continue };
        match by_id.get(item.id) {
            Some((_, was_chosen)) if configuration.is_none() || *was_chosen => {
                tree.fault(element, Check::HardwareItem, "each InstanceID once", item.id);
            }
            Some((index, _)) => {
                if let Some(replaced) = items.get_mut(*index) {
                    *replaced = item;
                }
            }
            None => {
                by_id.insert(item.id, (items.len(), configuration.is_some()));
                items.push(item);
            }
        }
    }
    items
}

fn item<'a>(tree: &mut Tree<'a, '_>, element: Element<'a>) -> Option<Item<'a>> {
    let Some(id) = text_of(element, "InstanceID") else {
        tree.fault(element, Check::HardwareItem, "InstanceID", "none");
        return None;
    };
    let kind = text_of(element, "ResourceType");
    let number = kind.and_then(|kind| kind.parse().ok());
    if number.is_none() {
        tree.fault(element, Check::HardwareItem, "ResourceType with a number", kind.unwrap_or("none"));
    }
    number.map(|kind| Item { element, id, kind })
}

/// The one that says so, or the first.
fn default_configuration<'a>(tree: &Tree<'a, '_>) -> Option<&'a str> {
    let all = tree.listed("DeploymentOptionSection", "Configuration");
    let is_default = |element: &&Element<'a>| matches!(tree.attribute(**element, "default"), Some("true" | "1"));
    let chosen = all.iter().find(is_default).or(all.first())?;
    tree.attribute(*chosen, "id")
}
