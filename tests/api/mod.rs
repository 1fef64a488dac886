//! The contract as clients see it, over gRPC, grpc-web and REST.

mod story;
