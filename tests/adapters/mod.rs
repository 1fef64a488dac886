//! Adapters against the real parts that they drive.

mod conformance;
mod mail;
mod simulated;
mod vcenter;
mod vcenter_lab;
pub(crate) mod vcsim;
