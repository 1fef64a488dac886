//! The bytes around a piece of an upload: it goes on as it came, so what makes a gRPC message of it is put in front of it.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use prost_reflect::{Kind, MessageDescriptor};

use crate::rules::{Body, Route};

/// Bytes of a gRPC message before the message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Which field of a request the pieces are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    /// The field with the `google.api.HttpBody`; none where that is the request.
    body: Option<u32>,
    /// Its bytes.
    data: u32,
}

impl Envelope {
    /// That of a route whose body is taken raw; none of others.
    pub(crate) fn of(route: &Route) -> Option<Self> {
        let data = |message: &MessageDescriptor| message.get_field_by_name("data").map(|field| field.number());
        match (&route.body, route.takes_raw()) {
            (_, false) | (Body::None, _) => None,
            (Body::All, _) => Some(Self { body: None, data: data(&route.rpc.input)? }),
            (Body::Field(field), _) => match field.kind() {
                Kind::Message(message) => Some(Self { body: Some(field.number()), data: data(&message)? }),
                _ => None,
            },
        }
    }

    /// What goes before a piece of so many bytes to make it a message.
    pub(crate) fn front(self, piece: usize) -> Bytes {
        let field = key_len(self.data) + encoded_len_varint(piece as u64) + piece;
        let message = self.body.map_or(field, |body| key_len(body) + encoded_len_varint(field as u64) + field);
        let mut front = BytesMut::with_capacity(HEAD + message - piece);
        head(message, &mut front);
        if let Some(body) = self.body {
            encode_key(body, WireType::LengthDelimited, &mut front);
            encode_varint(field as u64, &mut front);
        }
        encode_key(self.data, WireType::LengthDelimited, &mut front);
        encode_varint(piece as u64, &mut front);
        front.freeze()
    }
}

/// A message that is there as a whole.
pub(crate) fn whole(message: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEAD + message.len());
    head(message.len(), &mut whole);
    whole.extend_from_slice(message);
    whole.freeze()
}

fn head(message: usize, out: &mut BytesMut) {
    out.put_u8(0);
    // Neither a piece nor a request that fits into headers comes near.
    out.put_u32(u32::try_from(message).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use prost_reflect::DynamicMessage;
    use virtualstack_proto::DESCRIPTOR_POOL;

    use super::{Envelope, HEAD, whole};

    /// Any message with bytes will do, alone and in a field of another one.
    #[test]
    fn a_message_by_hand_is_the_one_by_the_descriptor() {
        let message = |name| DESCRIPTOR_POOL.get_message_by_name(name).expect("a message");
        let (inner, outer) = (message("google.protobuf.Any"), message("google.rpc.Status"));
        let data = inner.get_field_by_name("value").expect("a field").number();
        let field = outer.get_field_by_name("details").expect("a field");
        for size in [0, 1, 126, 127, 128, 16_383, 16_384, 256 * 1024] {
            let piece = vec![7; size];
            let held = |message: &DynamicMessage| {
                let held = message.get_field_by_name("value").expect("a field").as_bytes().cloned();
                assert_eq!(held.expect("bytes"), piece);
            };
            let bytes = [&Envelope { body: None, data }.front(size)[..], &piece].concat();
            assert_eq!(bytes[..HEAD], whole(&bytes[HEAD..])[..HEAD], "{size}");
            held(&DynamicMessage::decode(inner.clone(), &bytes[HEAD..]).expect("it decodes"));

            let bytes = [&Envelope { body: Some(field.number()), data }.front(size)[..], &piece].concat();
            assert_eq!(bytes[..HEAD], whole(&bytes[HEAD..])[..HEAD], "{size}");
            let message = DynamicMessage::decode(outer.clone(), &bytes[HEAD..]).expect("it decodes");
            held(message.get_field(&field).as_list().expect("a list")[0].as_message().expect("a message"));
        }
    }
}
