//! What broken OVAs are made of.

use crate::check::Check;
use crate::make::ova::{Flavour, Ova};
use crate::make::tar::{Member, pack};

/// What it is called, what is wrong, and the file.
pub(super) type Row = (&'static str, Check, Vec<u8>);

/// A good OVA of which one thing is changed.
pub(super) fn good() -> Ova {
    Ova::new(Flavour::VMware)
}

/// The members of a good OVA, changed.
pub(super) fn members(change: impl FnOnce(&mut Vec<Member>)) -> Vec<u8> {
    let mut members = good().members();
    change(&mut members);
    pack(&members)
}
