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
            .map(|violation| Violation::new(&violation.field_path(), description(violation)))
            .collect(),
        Err(error) => return Err(Error::internal(error)),
    };
    texts::check(message, &mut violations);
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid_all(violations)) }
}

/// What is wrong, for people: some rules come without a text, or with one for programmers.
fn description(violation: &prost_protovalidate::Violation) -> String {
    match (violation.rule_id(), violation.message()) {
        ("required", _) => "is required".to_owned(),
        ("string.pattern", message) => {
            let pattern = violation.rule_value().and_then(|value| value.as_str()).unwrap_or_default();
            match pattern.strip_prefix('^').and_then(|pattern| pattern.split_once('/')) {
                Some((collection, _)) => format!("must be a full name, {collection}/{{id}}"),
                None => message.to_owned(),
            }
        }
        ("string.ip_prefix", _) => "must be a network whose host bits are zero, e.g. 192.0.2.0/24".to_owned(),
        (rule, "") => format!("breaks the rule {rule}"),
        (_, message) => message.to_owned(),
    }
}

/// Compiles the rules before the first request needs them.
pub(crate) fn preload() {
    let warm = virtualstack_proto::virtualstack::compute::v1::CreateVmRequest::default();
    let _ = validate(&warm);
}
