//! Connections of the HTTP ports, those of the server and those of the gateway.
//!
//! Whoever connects is a stranger until a call says otherwise, so a connection costs little and not for long: each address
//! has a share of them; one that asks nothing, and one whose replies nobody reads, is closed.

mod body;
mod io;
mod limits;
mod network;
mod peer;
mod serve;
mod shares;

pub use io::Socket;
pub use limits::Limits;
pub use network::network;
pub use peer::Peer;
pub use serve::serve;
pub use shares::{Share, Shares};
