//! What went wrong, for whoever starts the product.

use std::io;
use std::path::Path;

use virtualstack_model::Error;

/// A program of PostgreSQL's did not do what it is for.
pub(crate) fn failed(program: &str, text: String) -> Error {
    Error::unavailable("DATABASE_CLUSTER", format!("{program} failed"), text)
}

/// Something is wrong with a file or a folder.
pub(crate) fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::precondition("DATA_FOLDER", path.display().to_string(), format!("{what} {}: {error}", path.display()))
}
