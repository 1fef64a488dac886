//! The rpcs that HTTP reaches, as the descriptors declare them with `google.api.http`.

use std::collections::HashSet;
use std::sync::Arc;

use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use virtualstack_proto::vendored::HttpRule;

use crate::error::Error;
use crate::fields;
use crate::template::Template;

/// The type whose bytes travel as they are, not as JSON.
const HTTP_BODY: &str = "google.api.HttpBody";

/// An rpc that HTTP reaches.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) name: String,
    pub(crate) path: PathAndQuery,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) streams_in: bool,
    pub(crate) streams_out: bool,
}

/// What the request's body fills.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    All,
    Field(FieldDescriptor),
}

/// One way to reach an rpc.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) verb: String,
    pub(crate) template: Template,
    /// The field of each of the template's variables, from the request downwards.
    pub(crate) bound: Vec<Vec<FieldDescriptor>>,
    pub(crate) body: Body,
}

impl Route {
    /// The body's message, where it is to be taken raw.
    pub(crate) fn takes_raw(&self) -> bool {
        match &self.body {
            Body::None => false,
            Body::All => self.rpc.input.full_name() == HTTP_BODY,
            Body::Field(field) => matches!(field.kind(), Kind::Message(message) if message.full_name() == HTTP_BODY),
        }
    }

    /// Whether the body goes on as it comes.
    pub(crate) fn is_upload(&self) -> bool {
        self.rpc.streams_in
    }
}

impl Rpc {
    /// Whether the reply is handed out raw.
    pub(crate) fn gives_raw(&self) -> bool {
        self.output.full_name() == HTTP_BODY
    }
}

/// All routes of the pool. The services that `instead` names have its rules in place of their own.
pub(crate) fn routes(pool: &DescriptorPool, instead: &[HttpRule]) -> Result<Vec<Route>, Error> {
    let extension = pool.get_extension_by_name("google.api.http");
    let replaced: HashSet<_> = instead.iter().filter_map(|rule| Some(rule.method.rsplit_once('.')?.0)).collect();
    let mut routes = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let rules = if replaced.contains(method.parent_service().full_name()) {
            let own = instead.iter().filter(|rule| rule.method == method.full_name());
            own.map(|rule| [rule.verb, rule.path, rule.body].map(str::to_owned)).collect()
        } else {
            declared(&method, extension.as_ref())?
        };
        if rules.is_empty() {
            continue;
        }
        let rpc = Arc::new(rpc(&method)?);
        for [verb, path, body] in rules {
            routes.push(route(&rpc, verb, &path, &body)?);
        }
    }
    Ok(routes)
}

fn rpc(method: &MethodDescriptor) -> Result<Rpc, Error> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let rpc = Rpc {
        name: method.full_name().to_owned(),
        path: path.parse().map_err(|_| invalid(method.full_name(), "its name is no path"))?,
        input: method.input(),
        output: method.output(),
        streams_in: method.is_client_streaming(),
        streams_out: method.is_server_streaming(),
    };
    match rpc.streams_out {
        true if rpc.streams_in => Err(invalid(&rpc.name, "streams in both directions are not supported")),
        _ => Ok(rpc),
    }
}

/// Verb, path and body of each rule that a method declares.
fn declared(method: &MethodDescriptor, extension: Option<&ExtensionDescriptor>) -> Result<Vec<[String; 3]>, Error> {
    let options = method.options();
    let Some(extension) = extension.filter(|extension| options.has_extension(extension)) else {
        return Ok(Vec::new());
    };
    let value = options.get_extension(extension);
    let Some(first) = value.as_message() else { return Ok(Vec::new()) };
    let more = first.get_field_by_name("additional_bindings");
    let more = more.iter().filter_map(|list| list.as_list()).flatten().filter_map(|rule| rule.as_message());
    std::iter::once(first).chain(more).map(|rule| declaration(method, rule)).collect()
}

fn declaration(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<[String; 3], Error> {
    if !fields::text(rule, "response_body").is_empty() {
        return Err(invalid(method.full_name(), "response_body is not supported"));
    }
    let mut pattern = ["get", "put", "post", "delete", "patch"]
        .into_iter()
        .filter(|verb| rule.has_field_by_name(verb))
        .map(|verb| (verb.to_uppercase(), fields::text(rule, verb)));
    let custom = || {
        let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"))?;
        Some((fields::text(custom.as_message()?, "kind"), fields::text(custom.as_message()?, "path")))
    };
    let (verb, path) =
        pattern.next().or_else(custom).ok_or_else(|| invalid(method.full_name(), "its rule has no path"))?;
    Ok([verb, path, fields::text(rule, "body")])
}

fn route(rpc: &Arc<Rpc>, verb: String, path: &str, body: &str) -> Result<Route, Error> {
    let wrong = |reason: &str| invalid(&rpc.name, &format!("{path}: {reason}"));
    let template = Template::parse(path).map_err(wrong)?;
    let mut bound = Vec::new();
    for variable in &template.variables {
        let fields = fields::resolve(&rpc.input, &variable.field).ok_or_else(|| wrong("a variable is no field"))?;
        if fields.iter().any(|field| field.is_list() || field.is_map()) {
            return Err(wrong("a variable fills a single field"));
        }
        bound.push(fields);
    }
    let body = match body {
        "" => Body::None,
        "*" => Body::All,
        name => Body::Field(rpc.input.get_field_by_name(name).ok_or_else(|| wrong("the body is no field"))?),
    };
    let route = Route { rpc: Arc::clone(rpc), verb, template, bound, body };
    match rpc.streams_in && !route.takes_raw() {
        true => Err(wrong("only google.api.HttpBody can be streamed in")),
        false => Ok(route),
    }
}

fn invalid(method: &str, reason: &str) -> Error {
    Error::Rule { method: method.to_owned(), reason: reason.to_owned() }
}
