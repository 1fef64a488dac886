//! Compiles the .proto files without protoc and makes three things of them: Rust messages and clients,
//! the descriptor set (for reflection, gateway and OpenAPI), and the policy and permission tables.
//!
//! The descriptor set says one thing more than the files: each field that names a resource has a `buf.validate` rule that
//! is made of the resource's pattern; see [`names`].

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

#[path = "build/names.rs"]
mod names;

/// Imports that no .proto of ours names, but that people need: who gets an error must be able to print its details.
const EXTRA: [&str; 4] = [
    "google/rpc/code.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
    "google/longrunning/operations.proto",
];

/// The one message of its package that Rust is made of.
const HTTP_BODY: &str = "google/api/httpbody.proto";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "how cargo talks to build scripts")]
    let folder = |name: &str| env::var(name).map(PathBuf::from);
    let (root, out) = (folder("CARGO_MANIFEST_DIR")?, folder("OUT_DIR")?);
    println!("cargo::rerun-if-changed=virtualstack");
    println!("cargo::rerun-if-changed=vendor");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");

    let mut files = protos(&root.join("virtualstack"))?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root, &root.join("vendor")])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files)?.open_files(EXTRA)?;

    // These bytes are the descriptor set. The types of prost would drop our options, so they never encode it again.
    let descriptors = names::derive_rules(&compiler.encode_file_descriptor_set())?;
    let descriptor_path = out.join("descriptors.bin");
    fs::write(&descriptor_path, &descriptors)?;
    println!("cargo::metadata=DESCRIPTORS={}", descriptor_path.display());

    let pool = DescriptorPool::decode(descriptors.as_slice())?;
    fs::write(out.join("tables.rs"), tables(&pool)?)?;

    let mut set = compiler.file_descriptor_set();
    // prost needs to see the well-known types, though it makes no code of them.
    set.file
        .retain(|file| generated(file.package()) || file.package() == "google.protobuf" || file.name() == HTTP_BODY);
    let mut builder = tonic_prost_build::configure()
        .build_server(false)
        // Ordered maps, so that equal messages are equal bytes: repeats of a request are told by a digest.
        .btree_map(".")
        // Uploads are not copied on their way.
        .bytes(".google.api.HttpBody")
        .include_file("mod.rs");
    for message in pool
        .all_messages()
        .filter(|message| generated(message.package_name()) || message.parent_file().name() == HTTP_BODY)
    {
        let name = message.full_name();
        builder = builder.message_attribute(
            name,
            format!(
                "#[derive(::prost_reflect::ReflectMessage)]\n\
                 #[prost_reflect(descriptor_pool = \"crate::DESCRIPTOR_POOL\", message_name = \"{name}\")]"
            ),
        );
    }
    builder.compile_fds(set)?;
    Ok(())
}

/// Whether Rust is made of a package. Options are read from the descriptors, so their types need none.
fn generated(package: &str) -> bool {
    matches!(package, "google.longrunning" | "google.rpc")
        || (package.starts_with("virtualstack.") && package != "virtualstack.options.v1")
}

fn protos(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(protos(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Writes the policy of each rpc and the catalogue of permissions as constants; fails on an rpc without a policy,
/// or one whose permission is not in the catalogue.
fn tables(pool: &DescriptorPool) -> Result<String> {
    let mut permissions = Vec::new();
    let extension = pool.get_extension_by_name("virtualstack.options.v1.permissions").ok_or("no permissions option")?;
    for file in pool.files() {
        let options = file.options();
        if let Value::List(list) = options.get_extension(&extension).as_ref() {
            for item in list {
                let item = item.as_message().ok_or("a permission is a message")?;
                permissions.push((
                    text(item, "code"),
                    text(item, "title"),
                    text(item, "description"),
                    text(item, "module"),
                    texts(item, "roles"),
                ));
            }
        }
    }
    permissions.sort();
    let codes: BTreeSet<_> = permissions.iter().map(|permission| permission.0.clone()).collect();
    if codes.len() != permissions.len() {
        return Err("a permission code is declared twice".into());
    }

    let mut source =
        String::from("/// The catalogue of permissions, by code.\npub const PERMISSIONS: &[Permission] = &[\n");
    for (code, title, description, module, roles) in &permissions {
        if [code, title, description, module].iter().any(|text| text.is_empty()) || roles.is_empty() {
            return Err(
                format!("permission {code:?}: code, title, description, module and roles are all needed").into()
            );
        }
        writeln!(
            source,
            "    Permission {{ code: {code:?}, title: {title:?}, description: {description:?}, module: {module:?}, \
             roles: &{roles:?} }},"
        )?;
    }
    source.push_str("];\n\n/// The policy of each rpc of ours, by path.\npub const POLICIES: &[(&str, Policy)] = &[\n");

    let extension = pool.get_extension_by_name("virtualstack.options.v1.policy").ok_or("no policy option")?;
    let mut rows = Vec::new();
    for service in pool.services().filter(|service| service.package_name().starts_with("virtualstack.")) {
        for method in service.methods() {
            rows.push(policy(&method, &extension, &codes)?);
        }
    }
    rows.sort();
    for row in rows {
        writeln!(source, "    {row},")?;
    }
    source.push_str("];\n");
    Ok(source)
}

fn policy(
    method: &MethodDescriptor,
    extension: &prost_reflect::ExtensionDescriptor,
    codes: &BTreeSet<String>,
) -> Result<String> {
    let name = method.full_name();
    let options = method.options();
    if !options.has_extension(extension) {
        return Err(format!("{name} has no (virtualstack.options.v1.policy): say who may call it").into());
    }
    let value = options.get_extension(extension);
    let policy = value.as_message().ok_or("a policy is a message")?;
    let permission = text(policy, "permission");
    let scope = match policy.get_field_by_name("scope").and_then(|scope| scope.as_enum_number()) {
        Some(1) => "Tenant",
        Some(2) => "Account",
        Some(3) => "Platform",
        Some(4) => "Public",
        _ => return Err(format!("{name}: its policy has no scope").into()),
    };
    match (scope, permission.as_str()) {
        ("Tenant" | "Platform", "") => return Err(format!("{name}: scope {scope} needs a permission").into()),
        ("Public", code) if !code.is_empty() => return Err(format!("{name}: a public rpc has no permission").into()),
        (_, code) if !code.is_empty() && !codes.contains(code) => {
            return Err(format!("{name}: permission {code:?} is not in the catalogue").into());
        }
        _ => {}
    }
    if (scope == "Platform") != permission.starts_with("platform:") {
        return Err(format!("{name}: codes that begin with platform: go with scope PLATFORM, and only with it").into());
    }
    let flag = |name: &str| policy.get_field_by_name(name).and_then(|flag| flag.as_bool()).unwrap_or_default();
    let (session_only, guessable) = (flag("session_only"), flag("guessable"));
    if guessable && scope != "Public" {
        return Err(format!("{name}: guessable goes with scope NONE only").into());
    }
    let (verb, path) = route(method).ok_or_else(|| format!("{name} has no google.api.http"))?;
    let (reads, collection) = (verb == "get" || flag("reads"), collection(&path));
    Ok(format!(
        "(\"/{}/{}\", Policy {{ scope: Scope::{scope}, permission: {permission:?}, session_only: {session_only}, \
         guessable: {guessable}, reads: {reads}, collection: {collection:?} }})",
        method.parent_service().full_name(),
        method.name()
    ))
}

/// Verb and path of a method's first http rule.
fn route(method: &MethodDescriptor) -> Option<(String, String)> {
    let extension = method.parent_pool().get_extension_by_name("google.api.http")?;
    let options = method.options();
    let rule = options.get_extension(&extension);
    let rule = rule.as_message()?;
    let route = |verb: &str| (verb.to_owned(), text(rule, verb));
    ["get", "post", "put", "patch", "delete"].into_iter().map(route).find(|(_, path)| !path.is_empty())
}

/// The last collection, or single resource, that a path names.
fn collection(path: &str) -> String {
    let path = path.replace(['{', '}'], "");
    let segments = path.split('/').map(|segment| segment.rsplit('=').next().unwrap_or_default());
    let mut segments = segments.map(|segment| segment.split(':').next().unwrap_or_default());
    let named = |segment: &&str| !["", "*", "v1", "current", "me"].contains(segment);
    segments.rfind(named).unwrap_or_default().to_owned()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn texts(message: &DynamicMessage, field: &str) -> Vec<String> {
    let values = message.get_field_by_name(field);
    let values = values.as_ref().and_then(|values| values.as_list()).unwrap_or_default();
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}
