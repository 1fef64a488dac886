//! What tenants upload, as objects in a folder or in an S3.
//!
//! An object is written by one put, whole or not at all, and never changed: its key is used once, and a put that is repeated
//! writes the same bytes. Nothing here tells which objects are wanted; rows of the database do. So bytes come first and the
//! row after them: once a put has returned, not even a power cut takes them.
//!
//! Large files are many objects of at most [`MAX_OBJECT`] bytes, and never a multipart upload of S3: what such an upload
//! leaves when it is given up can neither be listed nor removed through `object_store`, and would be paid for without being
//! seen. Of single puts there is nothing incomplete.

mod config;
mod fault;
mod key;
mod listed;
mod local;
mod objects;
mod s3;
mod walk;

pub use config::{Config, ConfigError, Kind, Secret};
pub use fault::{Class, Fault};
pub use key::{InvalidKey, Key};
pub use listed::Listed;
pub use objects::{MAX_OBJECT, Objects};
