//! Names of objects.

use std::fmt;
use std::str::FromStr;

/// Bytes of a key. S3 takes 1,024, of which `prefix` needs some.
const MAX_KEY: usize = 512;
/// Bytes of a segment. It is the name of a file.
const MAX_SEGMENT: usize = 128;

/// A name that is a path in a folder and a key in an S3, and means the same in both: segments of letters, digits, `.`, `_`
/// and `-` that do not begin with a dot, so none of them leads anywhere else. No key is the folder of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A key of these segments.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, InvalidKey> {
        let mut key = String::new();
        for segment in segments {
            let segment = segment.as_ref();
            if !is_safe(segment) {
                return Err(InvalidKey);
            }
            if !key.is_empty() {
                key.push('/');
            }
            key.push_str(segment);
        }
        if key.is_empty() || key.len() > MAX_KEY { Err(InvalidKey) } else { Ok(Self(key)) }
    }

    /// Its segments with `/` between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_safe(segment: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !segment.is_empty() && segment.len() <= MAX_SEGMENT && !segment.starts_with('.') && segment.bytes().all(safe)
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::new(text.split('/'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is up to {MAX_KEY} bytes: segments of letters, digits, '.', '_' and '-', each up to {MAX_SEGMENT} and not beginning with '.'"
)]
pub struct InvalidKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = Key::new(["uploads", "0198-a_b", "part.0001"]).expect("a key");
        assert_eq!(key.to_string(), "uploads/0198-a_b/part.0001");
        assert_eq!(key.as_str().parse(), Ok(key));
        assert!("a".repeat(MAX_SEGMENT).parse::<Key>().is_ok());
    }

    #[test]
    fn nothing_leads_out_of_the_folder_or_means_something_else_elsewhere() {
        for text in [
            "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", "./a", ".new/a", "a/.b", "a\\b", "a b",
            "a\0b", "a%2e", "ä", "a?b", "a#1", "a\nb", "a:b", "~",
        ] {
            assert_eq!(text.parse::<Key>(), Err(InvalidKey), "{text:?}");
        }
        assert_eq!(Key::new(["a/b"]), Err(InvalidKey), "a segment is one");
        assert_eq!(Key::new::<&str>([]), Err(InvalidKey));
        assert_eq!("a".repeat(MAX_SEGMENT + 1).parse::<Key>(), Err(InvalidKey));
        assert_eq!(vec!["a"; MAX_KEY].join("/").parse::<Key>(), Err(InvalidKey));
    }
}
