//! Tokens by which a reader of mails asks for no more of a kind. They say who and what, sealed: nothing of them is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::notifications::kind::NotificationKind;
use virtualstack_model::{Error, Result};

use crate::seal::MasterKey;

/// What they are sealed for.
const PURPOSE: &str = "unsubscribe";

/// Makes the token of a member and a kind.
pub fn token(key: &MasterKey, tenant: TenantId, user: UserId, kind: NotificationKind) -> Result<String> {
    let said = [tenant.0.as_bytes(), user.0.as_bytes(), kind.as_str().as_bytes()].concat();
    Ok(URL_SAFE_NO_PAD.encode(key.seal(PURPOSE, &said)?))
}

/// Reads a token.
pub fn read(key: &MasterKey, token: &str) -> Result<(TenantId, UserId, NotificationKind)> {
    let said = URL_SAFE_NO_PAD.decode(token).ok().and_then(|sealed| key.open(PURPOSE, &sealed).ok());
    let parts = said.as_deref().and_then(|said| Some((said.get(..16)?, said.get(16..32)?, said.get(32..)?)));
    let parts = parts.and_then(|(tenant, user, kind)| {
        let kind = NotificationKind::from_word(std::str::from_utf8(kind).ok()?)?;
        Some((TenantId(Uuid::from_slice(tenant).ok()?), UserId(Uuid::from_slice(user).ok()?), kind))
    });
    parts.ok_or_else(|| {
        Error::precondition(
            "UNSUBSCRIBE_TOKEN_INVALID",
            "token",
            "the token is not one of a mail that this product has sent",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_and_what_and_nothing_else_is_one() {
        let key = MasterKey::generate().expect("a key");
        let (tenant, user) = (TenantId(Uuid::now_v7()), UserId(Uuid::now_v7()));
        let mine = token(&key, tenant, user, NotificationKind::KeyExpiring).expect("a token");
        assert!(mine.len() < 200, "it is a part of a URL: {mine}");
        assert_eq!(read(&key, &mine).expect("good"), (tenant, user, NotificationKind::KeyExpiring));
        for wrong in ["", "x", &mine[1..], &mine[..mine.len() - 2], &format!("{mine}AAAA")] {
            assert_eq!(read(&key, wrong).expect_err("refused").reason(), "UNSUBSCRIBE_TOKEN_INVALID");
        }
        let other = MasterKey::generate().expect("a key");
        assert!(read(&other, &mine).is_err());
        assert!(read(&other.with_previous(&key), &mine).is_ok(), "while the key is changed, and after");
    }
}
