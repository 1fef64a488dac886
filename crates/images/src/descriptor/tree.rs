//! The tree of a descriptor, and where its faults go.

use roxmltree::{Document, Node};

use crate::check::Check;
use crate::fault::{Findings, Place};

/// A node of the tree.
pub(super) type Element<'a> = Node<'a, 'a>;

/// The tree of a descriptor.
pub(super) struct Tree<'a, 'f> {
    /// What the descriptor is called.
    pub(super) file: &'a str,
    pub(super) document: &'a Document<'a>,
    /// The namespace of its OVF.
    pub(super) ovf: &'a str,
    pub(super) findings: &'f mut Findings,
}

impl<'a> Tree<'a, '_> {
    /// Something is wrong with an element.
    pub(super) fn fault(
        &mut self,
        element: Element<'a>,
        check: Check,
        expected: impl AsRef<str>,
        found: impl AsRef<str>,
    ) {
        let place = self.place(element);
        self.findings.fault(check, self.file, place, expected, found);
    }

    /// Where an element stands. Finding it out takes a walk through the text, which nobody makes for faults that are only counted.
    pub(super) fn place(&self, element: Element<'a>) -> Place {
        if self.findings.is_full() {
            return Place::Nowhere;
        }
        let position = self.document.text_pos_at(element.range().start);
        Place::Line { line: position.row, column: position.col }
    }

    /// Whether it is an element of OVF with a name.
    pub(super) fn is(&self, element: Element<'a>, name: &str) -> bool {
        element.is_element() && element.tag_name().name() == name && element.tag_name().namespace() == Some(self.ovf)
    }

    /// The elements of OVF with a name in another.
    pub(super) fn children(&self, parent: Element<'a>, name: &str) -> Vec<Element<'a>> {
        parent.children().filter(|child| self.is(*child, name)).collect()
    }

    /// The elements of OVF with a name, in the sections of the envelope with another.
    pub(super) fn listed(&self, section: &str, name: &str) -> Vec<Element<'a>> {
        let sections = self.children(self.document.root_element(), section);
        sections.into_iter().flat_map(|section| self.children(section, name)).collect()
    }

    /// An attribute of OVF. Some programs leave its prefix out.
    pub(super) fn attribute(&self, element: Element<'a>, name: &str) -> Option<&'a str> {
        element.attribute((self.ovf, name)).or_else(|| element.attribute(name)).map(str::trim)
    }

    /// A number, or a fault.
    pub(super) fn number(&mut self, element: Element<'a>, name: &str, check: Check) -> Option<u64> {
        let text = self.attribute(element, name)?;
        let number = decimal(text);
        if number.is_none() {
            self.fault(element, check, format!("ovf:{name} in decimal digits"), text);
        }
        number
    }
}

/// A number without sign.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The text of the first element inside that has a name, whatever its namespace: OVF 1 and 2 differ in them.
pub(super) fn text_of<'a>(parent: Element<'a>, name: &str) -> Option<&'a str> {
    let named = |child: &Element<'_>| child.is_element() && child.tag_name().name().eq_ignore_ascii_case(name);
    parent.children().find(named).and_then(|child| child.text()).map(str::trim).filter(|text| !text.is_empty())
}

/// What depends on a property that somebody sets while deploying.
pub(super) fn is_property(text: &str) -> bool {
    text.contains("${")
}
