//! The descriptor (OVF): what it must say, so that vSphere takes it, and what the rest of the archive is held against.

mod disks;
mod files;
mod guest;
mod hardware;
mod items;
mod sections;
mod survey;
mod system;
mod text;
mod tree;
mod units;

use roxmltree::{Document, Error, ParsingOptions};

use crate::check::Check;
use crate::fault::{Findings, Place};
use crate::image::Appliance;
use crate::limits::Limits;
pub(crate) use files::File;
use survey::Excess;
use tree::Tree;

const NAMESPACES: [&str; 2] = ["http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/2"];
/// Texts between elements are nodes as well.
const MAX_NODES: u32 = 80_000;

/// What a descriptor says.
pub(crate) struct Envelope {
    /// Its disks have no parts yet.
    pub(crate) appliance: Appliance,
    pub(crate) files: Vec<File>,
}

/// Reads a descriptor; none when the rest of the archive makes no sense without it.
pub(crate) fn read(file: &str, bytes: Vec<u8>, limits: &Limits, findings: &mut Findings) -> Option<Envelope> {
    let text = text::decode(file, bytes, findings)?;
    if let Err(excess) = survey::survey(&text) {
        let (check, at, expected, found) = match excess {
            Excess::DocumentType(at) => (Check::DescriptorDtd, at, "no DOCTYPE".to_owned(), "one"),
            Excess::Bounds(at, expected) => (Check::DescriptorBounds, at, expected, "more"),
        };
        findings.fault(check, file, text::place_at(text.as_bytes(), at), expected, found);
        return None;
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let envelope = match Document::parse_with_options(&text, options) {
        Ok(document) => envelope(file, &document, limits, findings)?,
        Err(error) => {
            not_xml(file, &error, findings);
            return None;
        }
    };
    Some(Envelope { appliance: Appliance { descriptor: text, ..envelope.appliance }, files: envelope.files })
}

fn not_xml(file: &str, error: &Error, findings: &mut Findings) {
    let (check, expected) = match error {
        Error::DtdDetected => (Check::DescriptorDtd, "no DOCTYPE"),
        Error::NodesLimitReached | Error::AttributesLimitReached | Error::NamespacesLimitReached => {
            (Check::DescriptorBounds, "fewer elements")
        }
        _ => (Check::DescriptorXml, "well-formed XML"),
    };
    let place = Place::Line { line: error.pos().row, column: error.pos().col };
    findings.fault(check, file, place, expected, error.to_string());
}

fn envelope(file: &str, document: &Document<'_>, limits: &Limits, findings: &mut Findings) -> Option<Envelope> {
    let root = document.root_element();
    let (name, namespace) = (root.tag_name().name(), root.tag_name().namespace().unwrap_or_default());
    let ovf = NAMESPACES.into_iter().find(|known| *known == namespace).filter(|_| name == "Envelope");
    let mut tree = Tree { file, document, ovf: ovf.unwrap_or_default(), findings };
    if ovf.is_none() {
        let expected = format!("Envelope of {}", NAMESPACES.join(" or "));
        tree.fault(root, Check::OvfNamespace, expected, format!("{name} of {namespace:?}"));
        return None;
    }
    let system = system::only(&mut tree)?;
    let mut files = files::read(&mut tree, limits);
    let disks = disks::read(&mut tree, &files, limits);
    let networks = sections::networks(&mut tree);
    sections::check(&mut tree, system);
    let mut appliance = Appliance { networks, ..Appliance::default() };
    system::read(&mut tree, system, disks, &mut appliance, limits);
    disks::tell_files(&appliance.disks, &mut files);
    files::tell_unused(&mut tree, &files, &appliance);
    Some(Envelope { appliance, files })
}
