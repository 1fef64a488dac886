//! Which bytes of a file an upload brings, as HTTP says it.

use virtualstack_model::{Error, Result};
use virtualstack_store::compute::template_uploads::Coming;

/// What an upload says of itself before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) coming: Coming,
    /// How many bytes follow, where that is known.
    pub(crate) length: Option<i64>,
}

impl Announced {
    /// Of `Content-Range` and `Content-Length`; the one is empty for a whole file, and the other zero where it is not known.
    pub(crate) fn of(range: &str, length: i64) -> Result<Self> {
        let length = Some(length).filter(|length| *length > 0);
        if range.is_empty() {
            return Ok(Self { coming: Coming { first_byte: None, total: length }, length });
        }
        let [first, last, total] =
            numbers(range).filter(|[first, last, total]| first <= last && last < total).ok_or_else(|| {
                Error::invalid(
                    "content_range",
                    "must be \"bytes first-last/total\", with first <= last < total, and a total",
                )
            })?;
        let said = last - first + 1;
        if let Some(length) = length.filter(|length| *length != said) {
            let wrong = format!("is {length}, and contentRange says that {said} bytes come");
            return Err(Error::invalid("content_length", wrong));
        }
        Ok(Self { coming: Coming { first_byte: Some(first), total: Some(total) }, length: Some(said) })
    }
}

fn numbers(range: &str) -> Option<[i64; 3]> {
    let (unit, range) = range.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = range.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    Some([number(first)?, number(last)?, number(total)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_says_where_it_stands() {
        let piece = Announced::of("bytes 5-9/20", 0).expect("a piece");
        assert_eq!(piece, Announced { coming: Coming { first_byte: Some(5), total: Some(20) }, length: Some(5) });
        assert_eq!(Announced::of("Bytes 5-9/20", 5).expect("the same"), piece);
        for wrong in [
            "5-9/20",
            "bytes",
            "bytes 5-9",
            "bytes 5-9/*",
            "bytes */20",
            "bytes 9-5/20",
            "bytes 5-20/20",
            "bytes -5-9/20",
            "bytes +5-9/20",
            "bytes 5-9/99999999999999999999",
            "bytes=5-9/20",
            "items 5-9/20",
            "bytes 5 - 9/20",
        ] {
            let error = Announced::of(wrong, 0).expect_err(wrong);
            assert!(error.to_string().contains("contentRange"), "{error}");
        }
        let error = Announced::of("bytes 5-9/20", 6).expect_err("another length");
        assert!(error.to_string().contains("contentLength"), "{error}");
    }

    #[test]
    fn a_whole_file_may_say_its_size() {
        let whole = |total| Coming { first_byte: None, total };
        assert_eq!(Announced::of("", 0).expect("a file").coming, whole(None));
        assert_eq!(Announced::of("", 7).expect("a file").coming, whole(Some(7)));
    }
}
