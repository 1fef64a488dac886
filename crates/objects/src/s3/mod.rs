//! Objects in an S3, or in what speaks its protocol.

mod answer;
mod client;
mod credentials;
mod faults;
mod store;

pub(crate) use store::S3;
