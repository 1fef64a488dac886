//! Bytes of an upload on their way to an object of the store.

use bytes::{Bytes, BytesMut};
use virtualstack_model::compute::template::PIECE_BYTES;

/// Bytes that belong into one object. They are copied: a slice of a message keeps all of the message, which may be a thousand
/// times as large.
#[derive(Default)]
pub(crate) struct Piece(BytesMut);

impl Piece {
    /// Takes as much as there is room for; the rest is given back.
    pub(crate) fn fill(&mut self, mut data: Bytes) -> Bytes {
        let rest = data.split_off(data.len().min(PIECE_BYTES - self.0.len()));
        self.0.extend_from_slice(&data);
        rest
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() == PIECE_BYTES
    }

    /// Its bytes. None where there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.0).freeze()).filter(|bytes| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_piece_takes_no_more_than_an_object_holds() {
        let mut piece = Piece::default();
        assert!(piece.take().is_none());
        assert!(piece.fill(vec![1; PIECE_BYTES - 1].into()).is_empty());
        assert!(!piece.is_full());
        assert_eq!(&piece.fill(Bytes::from_static(&[2, 3, 4]))[..], [3, 4]);
        assert!(piece.is_full());
        let bytes = piece.take().expect("bytes");
        assert_eq!((bytes.len(), bytes[PIECE_BYTES - 2], bytes[PIECE_BYTES - 1]), (PIECE_BYTES, 1, 2));
        assert!(piece.take().is_none());
    }

    /// A buffer that is known by who holds it.
    struct Message(Arc<[u8]>);

    impl AsRef<[u8]> for Message {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn a_piece_keeps_no_message_for_a_part_of_it() {
        let message: Arc<[u8]> = vec![7; 1 << 20].into();
        let mut piece = Piece::default();
        for size in [1, 20_000, 1 << 19] {
            let data = Bytes::from_owner(Message(Arc::clone(&message))).slice(..size);
            assert!(piece.fill(data).is_empty());
            assert_eq!(Arc::strong_count(&message), 1, "{size}");
        }
        assert_eq!(piece.take().map(|bytes| bytes.len()), Some(1 + 20_000 + (1 << 19)));
    }
}
