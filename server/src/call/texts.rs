//! What people write: names, addresses and passwords. More is asked of them than the rules of the contract can say, so their fields say
//! what they are (`virtualstack.options.v1.text`).

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
};
use virtualstack_model::error::Violation;
use virtualstack_model::iam::{password, user};
use virtualstack_model::name;
use virtualstack_proto::DESCRIPTOR_POOL;

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Address,
    NewPassword,
}

impl Text {
    /// What is wrong with one that is there.
    fn problem(self, text: &str) -> Option<&'static str> {
        match self {
            Self::Name => name::check(text).err(),
            Self::Address => user::check_email(&user::normalize_email(text)).err(),
            Self::NewPassword => password::check_length(&password::normalize(text)).err(),
        }
    }
}

/// A field, by the fields that lead to it.
type Path = Vec<FieldDescriptor>;

/// The texts of each request that has any.
static TEXTS: LazyLock<HashMap<String, Vec<(Path, Text)>>> = LazyLock::new(|| {
    let options = Options::of(&DESCRIPTOR_POOL);
    let requests = DESCRIPTOR_POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let texts = requests.map(|method| method.input()).map(|request| {
        let mut found = Vec::new();
        options.find(&request, &mut Vec::new(), &mut found);
        (request.full_name().to_owned(), found)
    });
    texts.filter(|(_, found)| !found.is_empty()).collect()
});

/// Deeper than this no request nests what people write.
const DEPTH: usize = 3;

struct Options {
    text: prost_reflect::ExtensionDescriptor,
    rules: prost_reflect::ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Self {
        let extension = |name: &str| pool.get_extension_by_name(name).expect("an option of the contract");
        Self { text: extension("virtualstack.options.v1.text"), rules: extension("buf.validate.field") }
    }

    fn find(&self, message: &MessageDescriptor, path: &mut Path, found: &mut Vec<(Path, Text)>) {
        for field in message.fields().filter(|field| field.cardinality() != Cardinality::Repeated) {
            let options = field.options();
            // What an update sends is a part; what comes of it is checked as a whole.
            let rules = options.get_extension(&self.rules);
            let ignored = rules.as_message().and_then(|rules| rules.get_field_by_name("ignore")?.as_enum_number());
            if ignored == Some(3) {
                continue;
            }
            path.push(field.clone());
            match (field.kind(), options.get_extension(&self.text).as_enum_number()) {
                (Kind::String, Some(1)) => found.push((path.clone(), Text::Name)),
                (Kind::String, Some(2)) => found.push((path.clone(), Text::Address)),
                (Kind::String, Some(3)) => found.push((path.clone(), Text::NewPassword)),
                (Kind::Message(inner), _) if path.len() < DEPTH => self.find(&inner, path, found),
                _ => {}
            }
            path.pop();
        }
    }
}

/// Adds what is wrong with the texts of a message. Those that are missing, or have something wrong already, are left to the
/// rules.
pub(super) fn check(message: &impl ReflectMessage, violations: &mut Vec<Violation>) {
    let Some(texts) = TEXTS.get(message.descriptor().full_name()) else { return };
    let message = message.transcode_to_dynamic();
    for (path, kind) in texts {
        let Some(text) = text(&message, path).filter(|text| !text.is_empty()) else { continue };
        let Some(problem) = kind.problem(&text) else { continue };
        let names: Vec<_> = path.iter().map(FieldDescriptor::name).collect();
        let violation = Violation::new(&names.join("."), problem);
        if !violations.iter().any(|known| known.field == violation.field) {
            violations.push(violation);
        }
    }
}

fn text(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<String> {
    let (field, rest) = path.split_first()?;
    if !message.has_field(field) {
        return None;
    }
    let value = message.get_field(field);
    match rest {
        [] => value.as_str().map(str::to_owned),
        rest => text(value.as_message()?, rest),
    }
}
