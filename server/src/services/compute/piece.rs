//! Bytes of an upload on their way to an object of the store.

use bytes::{Bytes, BytesMut};
use virtualstack_model::compute::template::PIECE_BYTES;

/// Bytes that are worth keeping in the buffer that they came in; others are copied together.
const LARGE: usize = 16 * 1024;

/// Bytes that belong into one object.
#[derive(Default)]
pub(crate) struct Piece {
    chunks: Vec<Bytes>,
    /// What comes behind the chunks.
    tail: BytesMut,
    size: usize,
}

impl Piece {
    /// Takes as much as there is room for; the rest is given back.
    pub(crate) fn fill(&mut self, mut data: Bytes) -> Bytes {
        let rest = data.split_off(data.len().min(PIECE_BYTES - self.size));
        self.size += data.len();
        if data.len() < LARGE {
            self.tail.extend_from_slice(&data);
        } else {
            self.close_tail();
            self.chunks.push(data);
        }
        rest
    }

    pub(crate) fn is_full(&self) -> bool {
        self.size == PIECE_BYTES
    }

    /// Its bytes in order, and how many they are. None where there are none.
    pub(crate) fn take(&mut self) -> Option<(Vec<Bytes>, i64)> {
        self.close_tail();
        let size = i64::try_from(std::mem::take(&mut self.size)).unwrap_or(i64::MAX);
        Some((std::mem::take(&mut self.chunks), size)).filter(|_| size > 0)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_and_small_ones_share_a_buffer() {
        let mut piece = Piece::default();
        let mut sent = Vec::new();
        for (number, size) in [1, 2, LARGE, 3, LARGE - 1, LARGE * 2, 1].into_iter().enumerate() {
            let chunk = vec![u8::try_from(number).expect("few"); size];
            sent.extend_from_slice(&chunk);
            assert!(piece.fill(chunk.into()).is_empty());
        }
        let (chunks, size) = piece.take().expect("bytes");
        assert_eq!((chunks.len(), size), (5, i64::try_from(sent.len()).expect("few")));
        assert_eq!(chunks.concat(), sent);
        assert!(piece.take().is_none());
    }

    #[test]
    fn a_piece_takes_no_more_than_an_object_holds() {
        let mut piece = Piece::default();
        assert!(piece.fill(vec![1; PIECE_BYTES - 1].into()).is_empty());
        assert!(!piece.is_full());
        assert_eq!(&piece.fill(Bytes::from_static(&[2, 3, 4]))[..], [3, 4]);
        assert!(piece.is_full());
        let (chunks, size) = piece.take().expect("bytes");
        assert_eq!((chunks.concat().len(), size), (PIECE_BYTES, 8 << 20));
    }
}
