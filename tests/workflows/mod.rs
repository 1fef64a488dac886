//! Workflows under everything that can happen to a worker.

mod crash;
mod faults;
