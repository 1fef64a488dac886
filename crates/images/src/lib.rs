//! What an OVA or ISO says, and what is wrong with it.
//!
//! A file is pushed at an [`Inspection`] chunk by chunk, in order and once; nothing here reads or writes anything. Files come
//! from strangers and may be as large as a disk, so memory is bounded whatever they say (some 8 MiB, most of it a descriptor's
//! tree), and no step takes longer than its input and what that may unpack to. `cargo +nightly fuzz run file` and
//! `… run descriptor` look for what breaks that.

mod check;
mod contents;
mod descriptor;
mod digest;
mod disk;
mod fault;
mod fields;
mod image;
mod inspection;
mod iso;
mod limits;
mod look;
#[cfg(any(test, feature = "make"))]
pub mod make;
mod manifest;
mod members;
mod ova;
mod tar;
mod vmdk;

#[cfg(test)]
mod tests;

pub use check::Check;
pub use fault::{Faults, ImageFault, Place};
pub use image::{Appliance, Compression, Disk, Guest, Image, Medium, Part};
pub use inspection::{Format, Inspection};
pub use limits::Limits;
