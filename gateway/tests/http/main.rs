//! The gateway over real sockets, in front of a gRPC server that does what each test says.

mod calls;
mod downloads;
mod errors;
mod limits;
mod replies;
mod requests;
mod streams;
mod support;
mod uploads;
