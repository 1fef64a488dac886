//! Adapters against the real parts that they drive.

mod conformance;
mod images;
mod import_conformance;
mod mail;
mod simulated;
mod vcenter;
mod vcenter_imports;
mod vcenter_lab;
pub(crate) mod vcsim;
