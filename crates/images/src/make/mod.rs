//! Makes good and broken files, for tests of this crate and of what uses it.

mod broken;
mod descriptor;
mod iso;
mod members;
mod ova;
mod put;
mod tar;
mod vmdk;

pub use broken::{Broken, broken};
pub use iso::Iso;
pub use ova::{Flavour, Ova, Sum};
pub use tar::{Member, pack};
pub use vmdk::{GRAIN, SparseDisk};
