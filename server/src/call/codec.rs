//! The codec of every rpc: prost's, which then holds each request against its buf.validate rules. A handler therefore
//! never sees a request that breaks one, and its caller is told every field at once.

use std::marker::PhantomData;
use std::sync::LazyLock;

use prost::Message;
use prost_protovalidate::Validator;
use prost_reflect::ReflectMessage;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};
use virtualstack_model::Error;
use virtualstack_model::error::Violation;

use crate::call::{status, texts};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// prost's codec with validation.
#[derive(Debug, Clone)]
pub(crate) struct ValidatingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ValidatingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ValidatingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + ReflectMessage + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ValidatingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

/// Decodes, then validates.
pub(crate) struct ValidatingDecoder<U>(ProstDecoder<U>);

impl<U: Message + ReflectMessage + Default> Decoder for ValidatingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = self.0.decode(buffer)?;
        if let Some(message) = &message {
            validate(message).map_err(status::from_error)?;
        }
        Ok(message)
    }
}

/// Holds a message against its rules. Resources that were merged from a partial update come here by hand.
pub(crate) fn validate(message: &impl ReflectMessage) -> Result<(), Error> {
    let mut violations = match VALIDATOR.validate(message) {
        Ok(()) => Vec::new(),
        Err(prost_protovalidate::Error::Validation(invalid)) => invalid
            .violations()
            .iter()
            .map(|violation| Violation::new(&field(violation), description(violation)))
            .collect(),
        Err(error) => return Err(Error::internal(error)),
    };
    texts::check(message, &mut violations);
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid_all(violations)) }
}

/// Path of the field that is wrong. Of an entry of a map it ends in its key, as JSON writes it. The validator puts paths together
/// as text and takes that apart again, so a key with brackets is lost or comes in pieces: that of a rule on keys stands in the
/// violation, too; where a value is wrong, the map alone is named then.
fn field(violation: &prost_protovalidate::Violation) -> String {
    let path = violation.field_path();
    let Some(map) = violation.field_descriptor().filter(|field| field.is_map()) else { return path };
    let mut end = 0;
    for segment in path.split('.') {
        let name = segment.split('[').next().unwrap_or_default();
        if name == map.name() {
            end += name.len();
            break;
        }
        end = (end + segment.len() + 1).min(path.len());
    }
    let (map, entry) = path.split_at(end);
    let is_key = |key: &str| serde_json::from_str::<String>(key).is_ok();
    match violation.field_value().and_then(|value| value.as_str()) {
        Some(key) if violation.for_key() == Some(true) => format!("{map}[{}]", serde_json::Value::from(key)),
        _ if entry.strip_prefix('[').and_then(|key| key.strip_suffix(']')).is_some_and(is_key) => path,
        _ => map.to_owned(),
    }
}

/// What is wrong, for people: some rules come without a text, or with one for programmers.
fn description(violation: &prost_protovalidate::Violation) -> String {
    match (violation.rule_id(), violation.message()) {
        ("required", _) => "is required".to_owned(),
        ("string.pattern", message) => {
            let pattern = violation.rule_value().and_then(|value| value.as_str()).unwrap_or_default();
            match collection(pattern) {
                Some(collection) => format!("must be a full name, {collection}/{{id}}"),
                None => message.to_owned(),
            }
        }
        ("string.ip_prefix", _) => "must be a network whose host bits are zero, e.g. 192.0.2.0/24".to_owned(),
        (rule, "") => format!("breaks the rule {rule}"),
        (_, message) => message.to_owned(),
    }
}

/// The collection that the pattern of a full name begins with; other patterns have slashes, too.
fn collection(pattern: &str) -> Option<&str> {
    let form = pattern.strip_prefix('^')?;
    let (collection, _) = form.strip_prefix('(').unwrap_or(form).split_once('/')?;
    let is_word = !collection.is_empty() && collection.chars().all(|letter| letter.is_ascii_alphabetic());
    is_word.then_some(collection)
}

/// Compiles the rules before the first request needs them.
pub(crate) fn preload() {
    let warm = virtualstack_proto::virtualstack::compute::v1::CreateVmRequest::default();
    let _ = validate(&warm);
}

#[cfg(test)]
mod tests {
    use virtualstack_proto::virtualstack::compute::v1::{CreateVmRequest, Vm};

    use super::*;

    /// Fields that are wrong for such a label, and what is said of them.
    fn violations(key: &str, value: &str) -> Vec<(String, String)> {
        let labels = [(key.to_owned(), value.to_owned())].into_iter().collect();
        let template = "templates/0199a000-0000-7000-8000-000000000000".to_owned();
        let vm = Vm { display_name: "web".to_owned(), template, labels, ..Default::default() };
        match validate(&CreateVmRequest { vm: Some(vm), ..Default::default() }) {
            Ok(()) => Vec::new(),
            Err(Error::InvalidArgument { violations, .. }) => {
                violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_key_stands_whole_in_its_path() {
        for key in [
            "A b",
            "a_B",
            "a.b_C",
            "a\"b_C",
            "a]B.c_d",
            "a[B",
            "[\"a\"]",
            "A_b/c",
            "a\\B",
            "ä",
            "\u{1F600}_x",
            "",
            "].",
        ] {
            let path = format!("vm.labels[{}]", serde_json::Value::from(key));
            let told = violations(key, "fine");
            assert_eq!(told.iter().map(|(field, _)| field).collect::<Vec<_>>(), [&path], "{key}");
            assert!(told[0].1.contains("[-a-z0-9_./]") && !told[0].1.contains("full name"), "{told:?}");
        }
        assert_eq!(violations("app.kubernetes.io/name_x", "not fine")[0].0, r#"vm.labels["app.kubernetes.io/name_x"]"#);
        // Where both are wrong, the key is told with the one, and the map with the other at least.
        let both = violations("a]B.c", "not fine");
        let fields: Vec<_> = both.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, [r#"vm.labels["a]B.c"]"#, "vm.labels"]);
    }

    #[test]
    fn only_patterns_of_full_names_name_a_collection() {
        for (pattern, known) in [
            ("^vms/[0-9a-f]{8}$", Some("vms")),
            ("^(users/[0-9a-f]{8}|users/me)$", Some("users")),
            ("^[a-z0-9]([-a-z0-9_./]{0,61}[a-z0-9])?$", None),
            ("^https?://", None),
            ("/", None),
        ] {
            assert_eq!(collection(pattern), known, "{pattern}");
        }
    }
}
