//! Adapters against the real parts that they drive.

mod mail;
mod vcenter;
