//! Makes the server side of the services from the descriptor set of the proto crate, with our validating codec.

use std::{collections::BTreeSet, env, error::Error, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "how cargo talks to build scripts")]
    let path = env::var("DEP_VIRTUALSTACK_PROTO_DESCRIPTORS")?;
    println!("cargo::rerun-if-changed={path}");
    let mut set = FileDescriptorSet::decode(fs::read(path)?.as_slice())?;
    set.file.retain(|file| {
        let package = file.package();
        package.starts_with("virtualstack.")
            || matches!(package, "google.longrunning" | "google.rpc" | "google.protobuf")
    });
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::call::codec::ValidatingCodec")
        .include_file("services.rs");
    // The messages are the proto crate's.
    let packages: BTreeSet<_> = set.file.iter().map(|file| file.package().to_owned()).collect();
    for package in packages.iter().filter(|package| *package != "google.protobuf") {
        builder =
            builder.extern_path(format!(".{package}"), format!("::virtualstack_proto::{}", package.replace('.', "::")));
    }
    builder.compile_fds(set)?;
    Ok(())
}
