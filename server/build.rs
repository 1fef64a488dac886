//! Makes the server side of the services from the descriptor set of the proto crate, with our validating codec.
//!
//! tonic's traits take and give its own types, whatever the policy of an rpc says. Handlers implement a trait of ours
//! instead, whose methods take a call of the rpc's scope; tonic's trait is implemented here, once for all who do. What
//! the messages of a call have in common is told by their fields, and made here too.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use prost_build::{Method, Service, ServiceGenerator};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, MethodDescriptor};
use prost_types::FileDescriptorSet;

/// Scopes of the services whose options are not ours. A test holds them against the policies of the proto crate, as it does
/// those that are read from the options.
const VENDORED: [(&str, &str); 1] = [("google.longrunning.Operations", "Tenant")];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "how cargo talks to build scripts")]
    let variable = |name: &str| env::var(name);
    let path = variable("DEP_VIRTUALSTACK_PROTO_DESCRIPTORS")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed={path}");
    let descriptors = fs::read(path)?;

    // prost would drop our options.
    let pool = DescriptorPool::decode(descriptors.as_slice())?;
    let methods = served(&pool)?;
    fs::write(out.join("calls.rs"), calls(&methods)?)?;

    let mut set = FileDescriptorSet::decode(descriptors.as_slice())?;
    set.file.retain(|file| {
        let package = file.package();
        package.starts_with("virtualstack.")
            || matches!(package, "google.longrunning" | "google.rpc" | "google.protobuf")
            || file.name() == "google/api/httpbody.proto"
    });
    let tonic = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::call::codec::ValidatingCodec")
        .service_generator();
    let mut config = prost_build::Config::new();
    config.service_generator(Box::new(Services { tonic, methods })).include_file("services.rs");
    // The messages are the proto crate's.
    let packages: BTreeSet<_> = set.file.iter().map(|file| file.package().to_owned()).collect();
    for package in packages.iter().filter(|package| *package != "google.protobuf") {
        config.extern_path(format!(".{package}"), rust_path(package));
    }
    config.compile_fds(set)?;
    Ok(())
}

/// A method that this server answers, and the scope that its policy gives it.
struct Served {
    method: MethodDescriptor,
    scope: &'static str,
}

fn served(pool: &DescriptorPool) -> Result<Vec<Served>> {
    let extension = pool.get_extension_by_name("virtualstack.options.v1.policy").ok_or("no policy option")?;
    let mut served = Vec::new();
    for service in pool.services() {
        let vendored = VENDORED.iter().find(|(name, _)| *name == service.full_name()).map(|(_, scope)| *scope);
        if vendored.is_none() && !service.package_name().starts_with("virtualstack.") {
            continue;
        }
        for method in service.methods() {
            let options = method.options();
            let policy = options.get_extension(&extension);
            let scope = policy.as_message().and_then(|policy| policy.get_field_by_name("scope")?.as_enum_number());
            let scope = match (vendored, scope) {
                (Some(scope), _) => scope,
                (None, Some(1)) => "Tenant",
                (None, Some(2)) => "Account",
                (None, Some(3)) => "Platform",
                (None, Some(4)) => "Public",
                (None, _) => return Err(format!("{}: its policy has no scope", method.full_name()).into()),
            };
            served.push(Served { method, scope });
        }
    }
    Ok(served)
}

/// Writes what tonic's generator does, and our traits.
struct Services {
    tonic: Box<dyn ServiceGenerator>,
    methods: Vec<Served>,
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, code: &mut String) {
        self.write(&service, code).expect("a String takes everything");
        self.tonic.generate(service, code);
    }

    fn finalize(&mut self, code: &mut String) {
        self.tonic.finalize(code);
    }

    fn finalize_package(&mut self, package: &str, code: &mut String) {
        self.tonic.finalize_package(package, code);
    }
}

impl Services {
    fn write(&self, service: &Service, code: &mut String) -> std::fmt::Result {
        let Service { name, package, proto_name, .. } = service;
        let scope_of = |method: &Method| {
            let full_name = format!("{package}.{proto_name}.{}", method.proto_name);
            let served = self.methods.iter().find(|served| served.method.full_name() == full_name);
            served.map(|served| served.scope).expect("each method of a service that is made code of")
        };
        writeln!(
            code,
            "/// {name}, as it is implemented: each method takes a call of the scope that its policy says."
        )?;
        writeln!(code, "pub trait {name}: Send + Sync + 'static {{")?;
        for method in &service.methods {
            let (scope, Types { request, answer }) = (scope_of(method), types(method));
            let call = format!("crate::call::{scope}Call<{request}>");
            writeln!(code, "    fn {}(&self, call: {call})", method.name)?;
            writeln!(code, "    -> impl Future<Output = virtualstack_model::Result<{answer}>> + Send;")?;
        }
        writeln!(code, "}}\n")?;

        let server = server_module(proto_name);
        writeln!(code, "#[tonic::async_trait]")?;
        writeln!(code, "impl<T: {name}> {server}::{name} for crate::call::Served<T> {{")?;
        for method in &service.methods {
            let (scope, Types { request, answer }) = (scope_of(method), types(method));
            let (answer, reply) = if method.server_streaming {
                let stream = format!("{}Stream", method.proto_name);
                writeln!(code, "    type {stream} = crate::call::ReplyStream<{}>;", method.output_type)?;
                (format!("Self::{stream}"), "reply_by_stream")
            } else {
                (answer, "reply")
            };
            writeln!(code, "    async fn {}(&self, request: tonic::Request<{request}>)", method.name)?;
            writeln!(code, "    -> Result<tonic::Response<{answer}>, tonic::Status> {{")?;
            writeln!(code, "        let call = crate::call::{scope}Call::of(request)?;")?;
            writeln!(code, "        crate::call::{reply}(self.0.{}(call).await)", method.name)?;
            writeln!(code, "    }}")?;
        }
        writeln!(code, "}}\n")
    }
}

/// What a method takes and gives.
struct Types {
    request: String,
    answer: String,
}

fn types(method: &Method) -> Types {
    let (input, output) = (&method.input_type, &method.output_type);
    Types {
        request: if method.client_streaming { format!("tonic::Streaming<{input}>") } else { input.clone() },
        answer: if method.server_streaming { format!("crate::call::AnswerStream<{output}>") } else { output.clone() },
    }
}

/// The module that tonic puts a service in.
fn server_module(service: &str) -> String {
    let mut module = String::new();
    for (index, letter) in service.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            module.push('_');
        }
        module.push(letter.to_ascii_lowercase());
    }
    module + "_server"
}

/// Writes the tables of methods, and what requests and responses have in common.
fn calls(methods: &[Served]) -> Result<String> {
    let path = |method: &MethodDescriptor| format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut code = String::from(
        "/// Methods whose requests are streams, by path.\npub(crate) const CLIENT_STREAMS: &[&str] = &[\n",
    );
    for Served { method, .. } in methods.iter().filter(|served| served.method.is_client_streaming()) {
        writeln!(code, "    {:?},", path(method))?;
    }
    code.push_str(
        "];\n\n/// Methods that are answered by streams, by path.\npub(crate) const SERVER_STREAMS: &[&str] = &[\n",
    );
    for Served { method, .. } in methods.iter().filter(|served| served.method.is_server_streaming()) {
        writeln!(code, "    {:?},", path(method))?;
    }
    code.push_str("];\n\n/// The scope of each method, by path.\n#[cfg(test)]\npub(crate) const SCOPES: &[(&str, virtualstack_proto::Scope)] = &[\n");
    for Served { method, scope } in methods {
        writeln!(code, "    ({:?}, virtualstack_proto::Scope::{scope}),", path(method))?;
    }
    code.push_str("];\n\n");
    let mut written = BTreeSet::new();
    for Served { method, .. } in methods {
        let (request, response) = (method.input(), method.output());
        if request.package_name() != "google.protobuf" && written.insert(request.full_name().to_owned()) {
            mutation(&mut code, &request)?;
            if has(&request, "page_token") {
                list(&mut code, &request)?;
            }
        }
        if has(&response, "next_page_token") && written.insert(response.full_name().to_owned()) {
            page(&mut code, &response)?;
        }
    }
    Ok(code)
}

fn mutation(code: &mut String, request: &MessageDescriptor) -> std::fmt::Result {
    let repeatable = has(request, "request_id");
    let request_id = if repeatable { "&self.request_id" } else { "\"\"" };
    let validate_only = if has(request, "validate_only") { "self.validate_only" } else { "false" };
    writeln!(code, "impl crate::call::write::Mutation for {} {{", rust_type(request))?;
    writeln!(code, "    const REPEATABLE: bool = {repeatable};")?;
    writeln!(code, "    fn request_id(&self) -> &str {{ {request_id} }}")?;
    let said = if repeatable { "&Self { request_id: String::new(), ..self.clone() }" } else { "self" };
    writeln!(code, "    fn said(&self) -> Vec<u8> {{ prost::Message::encode_to_vec({said}) }}")?;
    writeln!(code, "    fn validate_only(&self) -> bool {{ {validate_only} }}")?;
    writeln!(code, "}}")
}

fn list(code: &mut String, request: &MessageDescriptor) -> std::fmt::Result {
    let text = |field| if has(request, field) { format!("self.{field}.clone()") } else { "String::new()".to_owned() };
    let show_total = if has(request, "show_total") { "self.show_total" } else { "false" };
    writeln!(code, "impl crate::call::list::List for {} {{", rust_type(request))?;
    writeln!(code, "    fn list(&self) -> virtualstack_store::ListRequest {{")?;
    writeln!(code, "        virtualstack_store::ListRequest {{")?;
    writeln!(code, "            page_size: self.page_size, show_total: {show_total},")?;
    for field in ["page_token", "filter", "order_by"] {
        writeln!(code, "            {field}: {},", text(field))?;
    }
    writeln!(code, "        }}\n    }}\n}}")
}

fn page(code: &mut String, response: &MessageDescriptor) -> Result<()> {
    let mut lists = response.fields().filter(|field| field.is_list());
    let named = || format!("{}: a page lists messages of one kind", response.full_name());
    let items = lists.find(|field| matches!(field.kind(), Kind::Message(_))).ok_or_else(named)?;
    let Kind::Message(item) = items.kind() else { return Err(named().into()) };
    let mut fields = vec![format!("{}: items", items.name()), "next_page_token".to_owned()];
    let total = has(response, "total_size");
    if total {
        fields.push("total_size".to_owned());
    }
    if response.fields().len() > fields.len() {
        fields.push("..Default::default()".to_owned());
    }
    let total = if total { "total_size" } else { "_" };
    let item = rust_type(&item);
    writeln!(code, "impl crate::call::list::Page for {} {{", rust_type(response))?;
    writeln!(code, "    type Item = {item};")?;
    writeln!(code, "    fn of(items: Vec<{item}>, next_page_token: String, {total}: Option<i32>) -> Self {{")?;
    writeln!(code, "        Self {{ {} }}", fields.join(", "))?;
    writeln!(code, "    }}\n}}")?;
    Ok(())
}

fn has(message: &MessageDescriptor, field: &str) -> bool {
    message.get_field_by_name(field).is_some()
}

fn rust_type(message: &MessageDescriptor) -> String {
    format!("{}::{}", rust_path(message.package_name()), message.name())
}

fn rust_path(package: &str) -> String {
    format!("::virtualstack_proto::{}", package.replace('.', "::"))
}
