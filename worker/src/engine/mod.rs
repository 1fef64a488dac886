//! Runs claimed jobs: steps, their context, and which job is run by what.

pub(crate) mod context;
pub(crate) mod probe;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod step_error;
