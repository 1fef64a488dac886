//! Keyset paging: a page starts after the last row of the one before, so page 1000 costs what page 1 costs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use virtualstack_model::{Error, Result, page};

use crate::digest::{DigestKeys, Purpose};

/// Which page of a list a caller wants.
#[derive(Debug)]
pub(crate) struct Page {
    size: i64,
    /// The keys of the last row of the page before, one for each field of the order.
    pub(crate) after: Option<Vec<Value>>,
    /// What the token is bound to.
    question: String,
    digests: DigestKeys,
}

/// What a page token says: where to go on, and for which question. Where to go on is no secret: whoever makes that up begins
/// somewhere else among what they see anyway.
#[derive(Serialize, Deserialize)]
struct Token {
    k: Vec<Value>,
    b: Vec<u8>,
}

/// Bytes of the digest that a token carries.
const DIGEST: usize = 16;

impl Page {
    /// Reads the paging fields of a request. `query` is everything else that the list depends on, tenant included: a
    /// token is good for the question it was given for, and no other, and does not show what that depends on.
    pub(crate) fn read(digests: DigestKeys, size: i32, token: &str, query: &[&str]) -> Result<Self> {
        let question = query.iter().map(|part| format!("{}:{part}", part.len())).collect();
        let mut page = Self { size: page::size(size), after: None, question, digests };
        if token.is_empty() {
            return Ok(page);
        }
        let wrong = || Error::invalid("page_token", "is not a token of this list");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        if !page.digests.is(&token.b, Purpose::PageToken, &[page.question.as_bytes()]) {
            return Err(Error::invalid("page_token", "was given for another query; start again without it"));
        }
        page.after = Some(token.k);
        Ok(page)
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
        let digest = self.digests.digest(Purpose::PageToken, &[self.question.as_bytes()]);
        let token = Token { k: keys(last), b: digest[..DIGEST].to_vec() };
        let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(Error::internal)?);
        Ok((rows, token))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(master: u8) -> DigestKeys {
        DigestKeys::new(&[master; 32], None).expect("keys")
    }

    #[test]
    fn a_token_is_good_for_its_query_only() {
        let first = Page::read(keys(1), 2, "", &["tenant", "vms"]).expect("a page");
        let (rows, token) = first.cut(vec![3, 2, 1], |row| vec![json!(row)]).expect("rows");
        assert_eq!(rows, [3, 2]);
        assert_eq!(Page::read(keys(1), 2, &token, &["tenant", "vms"]).expect("a page").after, Some(vec![json!(2)]));
        let error = Page::read(keys(1), 2, &token, &["other", "vms"]).expect_err("refused");
        assert_eq!(error.reason(), "INVALID_FIELDS");
        assert!(Page::read(keys(1), 2, "nonsense", &["tenant", "vms"]).is_err());
        // Without the key nobody makes one.
        assert!(Page::read(keys(2), 2, &token, &["tenant", "vms"]).is_err());
        // A token from before the master key was changed goes on.
        let both = DigestKeys::new(&[2; 32], Some(&[1; 32])).expect("keys");
        assert_eq!(Page::read(both, 2, &token, &["tenant", "vms"]).expect("a page").after, Some(vec![json!(2)]));
    }

    #[test]
    fn the_last_page_has_no_token() {
        let page = Page::read(keys(1), 2, "", &[""]).expect("a page");
        assert_eq!(page.cut(vec![2, 1], |row| vec![json!(row)]).expect("rows").1, "");
    }
}
