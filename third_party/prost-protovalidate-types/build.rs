//! Compiles validate.proto with protox; the original build script needs protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::DescriptorPool;

fn main() -> Result<(), Box<dyn Error>> {
    let imports = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto/vendor");
    println!("cargo::rerun-if-changed={}", imports.join("buf/validate/validate.proto").display());
    let mut compiler = protox::Compiler::new([&imports])?;
    compiler.include_imports(true).open_file("buf/validate/validate.proto")?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("file_descriptor_set.bin"), &descriptors)?;

    let mut config = prost_build::Config::new();
    if env::var_os("CARGO_FEATURE_REFLECT").is_some() {
        for message in DescriptorPool::decode(descriptors.as_slice())?.all_messages() {
            let name = message.full_name();
            config.type_attribute(
                name,
                format!(
                    "#[derive(::prost_reflect::ReflectMessage)]\n\
                     #[prost_reflect(descriptor_pool = \"DESCRIPTOR_POOL\", message_name = \"{name}\")]"
                ),
            );
        }
    }
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
