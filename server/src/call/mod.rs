//! What every call is made of: who calls, the codec, and the status of errors.

pub(crate) mod caller;
pub(crate) mod codec;
pub(crate) mod status;
