//! What a full name looks like, derived: a field that names a resource gets the `buf.validate` rule that the pattern of
//! `google.api.resource` amounts to. No proto says it twice, and whoever reads the rules (the server's codec, a client by
//! reflection, OpenAPI) finds them in one place.
//!
//! A segment in braces is a UUID, or what `(virtualstack.options.v1.key)` of that resource or
//! `(virtualstack.options.v1.alias)` of the field lets a request say instead.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, Value};

use crate::Result;

const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";

/// `google.api.FieldBehavior` REQUIRED, OUTPUT_ONLY and IDENTIFIER.
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;
const IDENTIFIER: i32 = 8;

/// `buf.validate.Ignore` IGNORE_IF_ZERO_VALUE.
const IGNORE_IF_ZERO_VALUE: i32 = 1;

/// A resource, as `google.api.resource` has it.
struct Resource {
    patterns: Vec<String>,
    /// What may stand for its UUID.
    key: String,
}

/// The options that are read, and the one that is written.
struct Options {
    resource: ExtensionDescriptor,
    key: ExtensionDescriptor,
    reference: ExtensionDescriptor,
    alias: ExtensionDescriptor,
    behavior: ExtensionDescriptor,
    rules: ExtensionDescriptor,
}

struct Names {
    options: Options,
    resources: BTreeMap<String, Resource>,
}

/// The descriptor set with a rule for every field of ours that names a resource.
pub(crate) fn derive_rules(descriptors: &[u8]) -> Result<Vec<u8>> {
    let pool = DescriptorPool::decode(descriptors)?;
    let extension = |name: &str| pool.get_extension_by_name(name).ok_or_else(|| format!("{name} is not in the set"));
    let options = Options {
        resource: extension("google.api.resource")?,
        key: extension("virtualstack.options.v1.key")?,
        reference: extension("google.api.resource_reference")?,
        alias: extension("virtualstack.options.v1.alias")?,
        behavior: extension("google.api.field_behavior")?,
        rules: extension("buf.validate.field")?,
    };
    let resources = pool.all_messages().filter_map(|message| resource(&options, &message)).collect();
    let names = Names { options, resources };

    let set =
        pool.get_message_by_name("google.protobuf.FileDescriptorSet").ok_or("descriptor.proto is not in the set")?;
    let mut set = DynamicMessage::decode(set, descriptors)?;
    for file in list(&mut set, "file") {
        let package = crate::text(file, "package");
        if package.starts_with("virtualstack.") {
            names.derive(file, "message_type", &package)?;
        }
    }
    Ok(set.encode_to_vec())
}

fn resource(options: &Options, message: &MessageDescriptor) -> Option<(String, Resource)> {
    let said = message.options();
    said.has_extension(&options.resource).then_some(())?;
    let resource = said.get_extension(&options.resource);
    let resource = resource.as_message()?;
    let patterns = resource.get_field_by_name("pattern")?;
    let patterns = patterns.as_list()?.iter().filter_map(|pattern| Some(pattern.as_str()?.to_owned())).collect();
    let key = said.get_extension(&options.key).as_str().unwrap_or_default().to_owned();
    Some((crate::text(resource, "type"), Resource { patterns, key }))
}

impl Names {
    /// Writes the rules into the messages of a file, or into those within a message.
    fn derive(&self, within: &mut DynamicMessage, messages: &str, scope: &str) -> Result<()> {
        for message in list(within, messages) {
            let name = format!("{scope}.{}", crate::text(message, "name"));
            self.derive(message, "nested_type", &name)?;
            let own = message.get_field_by_name("options").and_then(|options| {
                let resource = options.as_message()?.get_extension(&self.options.resource).into_owned();
                Some(crate::text(resource.as_message()?, "type"))
            });
            for field in list(message, "field") {
                let at = format!("{name}.{}", crate::text(field, "name"));
                self.write(field, own.as_deref()).map_err(|error| format!("{at}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Writes the rule of a field, if it names a resource and comes from a client. `own` is the resource that it is in.
    fn write(&self, field: &mut DynamicMessage, own: Option<&str>) -> Result<()> {
        let repeated = field.get_field_by_name("label").is_some_and(|label| label.as_enum_number() == Some(3));
        if !field.has_field_by_name("options") {
            return Ok(());
        }
        let Some(Value::Message(options)) = field.get_field_by_name_mut("options") else { return Ok(()) };
        let behavior = options.get_extension(&self.options.behavior).into_owned();
        let is = |desired: i32| {
            behavior.as_list().is_some_and(|all| all.iter().any(|one| one.as_enum_number() == Some(desired)))
        };
        let of = if options.has_extension(&self.options.reference) {
            let reference = options.get_extension(&self.options.reference).into_owned();
            crate::text(reference.as_message().ok_or("a reference is a message")?, "type")
        } else if let (true, Some(own)) = (is(IDENTIFIER), own.filter(|own| !own.is_empty())) {
            own.to_owned()
        } else {
            return Ok(());
        };
        if is(OUTPUT_ONLY) {
            return Ok(());
        }
        let alias = options.get_extension(&self.options.alias).as_str().unwrap_or_default().to_owned();
        let pattern = self.pattern(&of, &alias)?;
        let rules = message(options.get_extension_mut(&self.options.rules))?;
        let text = if repeated {
            let list = message(rules.get_field_by_name_mut("repeated").ok_or("no rules of lists")?)?;
            let items = message(list.get_field_by_name_mut("items").ok_or("no rules of items")?)?;
            items.get_field_by_name_mut("string")
        } else {
            if !is(REQUIRED) {
                rules.set_field_by_name("ignore", Value::EnumNumber(IGNORE_IF_ZERO_VALUE));
            }
            rules.get_field_by_name_mut("string")
        };
        let text = message(text.ok_or("no rules of strings")?)?;
        if text.has_field_by_name("pattern") {
            return Err(format!("its pattern is that of {of}; it need not say one").into());
        }
        text.set_field_by_name("pattern", Value::String(pattern));
        Ok(())
    }

    /// The regular expression of a type's full names.
    fn pattern(&self, of: &str, alias: &str) -> Result<String> {
        let resource = self.resources.get(of).ok_or_else(|| format!("there is no resource {of:?}"))?;
        let forms: Vec<_> = resource.patterns.iter().map(|pattern| self.form(pattern, alias)).collect();
        match forms.as_slice() {
            [] => Err(format!("resource {of:?} has no pattern").into()),
            [form] => Ok(format!("^{form}$")),
            forms => Ok(format!("^({})$", forms.join("|"))),
        }
    }

    fn form(&self, pattern: &str, alias: &str) -> String {
        let segments: Vec<_> = pattern.split('/').collect();
        let last = segments.iter().rposition(|segment| segment.starts_with('{'));
        let form = |(index, segment): (usize, &&str)| {
            if !segment.starts_with('{') {
                return (*segment).to_owned();
            }
            // The resource that this id is of: itself, or one that it is in.
            let prefix = segments[..=index].join("/");
            let of = self.resources.values().find(|resource| resource.patterns.contains(&prefix));
            let mut ids = vec![UUID];
            ids.extend(of.map(|resource| resource.key.as_str()).filter(|key| !key.is_empty()));
            ids.extend(Some(alias).filter(|alias| !alias.is_empty() && last == Some(index)));
            if ids.len() == 1 { UUID.to_owned() } else { format!("({})", ids.join("|")) }
        };
        segments.iter().enumerate().map(form).collect::<Vec<_>>().join("/")
    }
}

/// The messages of a repeated field.
fn list<'a>(message: &'a mut DynamicMessage, field: &str) -> impl Iterator<Item = &'a mut DynamicMessage> {
    let values = message.get_field_by_name_mut(field).and_then(Value::as_list_mut);
    values.into_iter().flatten().filter_map(Value::as_message_mut)
}

fn message(value: &mut Value) -> Result<&mut DynamicMessage> {
    value.as_message_mut().ok_or_else(|| "not a message".into())
}
