//! Runs claimed jobs: workflows step by step, tasks try by try, and which kind of job is done by what.

pub(crate) mod cleanup;
pub(crate) mod context;
pub(crate) mod mailing;
pub(crate) mod probe;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod step_error;
pub(crate) mod task;
