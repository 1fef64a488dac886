//! Keyset paging: a page starts after the last row of the one before, so page 1000 costs what page 1 costs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use virtualstack_model::{Error, Result, page};

/// Which page of a list a caller wants.
#[derive(Debug)]
pub(crate) struct Page {
    size: i64,
    /// The keys of the last row of the page before, one for each field of the order.
    pub(crate) after: Option<Vec<Value>>,
    /// What the token is bound to.
    binding: Vec<u8>,
}

/// What a page token says: where to go on, and for which question.
#[derive(Serialize, Deserialize)]
struct Token {
    k: Vec<Value>,
    b: Vec<u8>,
}

impl Page {
    /// Reads the paging fields of a request. `query` is everything else that the list depends on, tenant included: a
    /// token is good for the question it was given for, and no other.
    pub(crate) fn read(size: i32, token: &str, query: &[&str]) -> Result<Self> {
        let mut digest = Sha256::new();
        for part in query {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let binding = digest.finalize()[..8].to_vec();
        let after = if token.is_empty() {
            None
        } else {
            let wrong = || Error::invalid("page_token", "is not a token of this list");
            let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
            let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
            if token.b != binding {
                return Err(Error::invalid("page_token", "was given for another query; start again without it"));
            }
            Some(token.k)
        };
        Ok(Self { size: page::size(size), after, binding })
    }

    /// Rows to fetch: one more than the page has, to see whether another follows.
    pub(crate) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts fetched rows to the page, with the token of the next one; empty on the last.
    pub(crate) fn cut<T>(&self, mut rows: Vec<T>, keys: impl Fn(&T) -> Vec<Value>) -> Result<(Vec<T>, String)> {
        let size = usize::try_from(self.size).map_err(Error::internal)?;
        if rows.len() <= size {
            return Ok((rows, String::new()));
        }
        rows.truncate(size);
        let Some(last) = rows.last() else { return Ok((rows, String::new())) };
        let token = Token { k: keys(last), b: self.binding.clone() };
        let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(Error::internal)?);
        Ok((rows, token))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_good_for_its_query_only() {
        let first = Page::read(2, "", &["tenant", "vms"]).expect("a page");
        let (rows, token) = first.cut(vec![3, 2, 1], |row| vec![json!(row)]).expect("rows");
        assert_eq!(rows, [3, 2]);
        assert_eq!(Page::read(2, &token, &["tenant", "vms"]).expect("a page").after, Some(vec![json!(2)]));
        let error = Page::read(2, &token, &["other", "vms"]).expect_err("refused");
        assert_eq!(error.reason(), "INVALID_FIELDS");
        assert!(Page::read(2, "nonsense", &["tenant", "vms"]).is_err());
    }

    #[test]
    fn the_last_page_has_no_token() {
        let page = Page::read(2, "", &[""]).expect("a page");
        assert_eq!(page.cut(vec![2, 1], |row| vec![json!(row)]).expect("rows").1, "");
    }
}
