//! The services' traits and servers, made from the descriptors.

#![expect(unreachable_pub, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/services.rs"));
include!(concat!(env!("OUT_DIR"), "/calls.rs"));
