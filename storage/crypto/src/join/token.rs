//! The token: all that a new node has to be told, in one word.
//!
//! ```text
//!   zyj1_learner_4_<32 digits>_<64 digits>_<8 digits>@10.0.0.1:7401
//!        role    id secret      SHA-256 of  checksum   where it is taken
//!                               the CA's DER
//! ```

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::hex;
use crate::identity::Role;
use crate::random::{self, RandomError};

const PREFIX: &str = "zyj1";

/// 128 bits: nobody guesses it, however often they may ask.
const SECRET_BYTES: usize = 16;

/// Enough of a hash to notice a slip of the pen.
const CHECKSUM_BYTES: usize = 4;

/// What BLAKE3 derives the stored hash of a secret for.
const SECRET_CONTEXT: &str = "zyflow 2026-11 join token secret";

/// What BLAKE3 derives a token's checksum for.
const CHECKSUM_CONTEXT: &str = "zyflow 2026-11 join token checksum";

/// Lets one new node into the cluster. Whoever has it can take that node's place: as secret as a password.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What the node's certificate will say that it is.
    pub role: Role,
    /// Its id.
    pub node_id: u64,
    /// SHA-256 of the CA's certificate.
    pub ca: [u8; 32],
    /// `HOST:PORT` of the node that takes it.
    pub address: String,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// What is kept of a secret by whoever takes the token.
#[derive(Clone, Copy, Debug)]
pub struct SecretHash([u8; 32]);

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token ({0}): copy all of it, from {PREFIX}_ to the port, as `zyflow cluster token` printed it"
)]
pub struct TokenError(&'static str);

impl JoinToken {
    /// A new token with a new secret.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn new(role: Role, node_id: u64, ca: [u8; 32], address: String) -> Result<Self, RandomError> {
        Ok(Self { role, node_id, ca, address, secret: Zeroizing::new(random::bytes()?) })
    }

    /// The secret, to be told to the node that takes the token and to nobody else.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret[..]
    }

    /// What to keep of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(self.secret())
    }

    fn without_checksum(&self) -> Zeroizing<String> {
        let Self { role, node_id, ca, secret, .. } = self;
        let secret = Zeroizing::new(hex::encode(&secret[..]));
        Zeroizing::new(format!("{PREFIX}_{role}_{node_id}_{}_{}", *secret, hex::encode(ca)))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.without_checksum();
        write!(f, "{}_{}@{}", *text, hex::encode(&checksum(&text, &self.address)), self.address)
    }
}

/// Without its secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({} {} at {})", self.role, self.node_id, self.address)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (token, address) = text.trim().split_once('@').ok_or(TokenError("it has no @ and address"))?;
        let parts: Vec<&str> = token.split('_').collect();
        let [PREFIX, role, node_id, secret, ca, sum] = parts[..] else {
            return Err(TokenError("it doesn't have its six parts"));
        };
        let role = Role::ALL.into_iter().find(|known| known.is_node() && known.as_str() == role);
        let token = Self {
            role: role.ok_or(TokenError("its role is neither learner nor voter"))?,
            node_id: node_id.parse().ok().filter(|id| *id > 0).ok_or(TokenError("its id is no number from 1 up"))?,
            ca: hex::decode(ca).ok_or(TokenError("the CA's hash isn't 64 digits"))?,
            address: address.to_owned(),
            secret: Zeroizing::new(hex::decode(secret).ok_or(TokenError("its secret isn't 32 digits"))?),
        };
        let is_whole = hex::decode(sum) == Some(checksum(&token.without_checksum(), address));
        if is_whole { Ok(token) } else { Err(TokenError("a character is wrong or missing")) }
    }
}

fn checksum(text: &str, address: &str) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
    hasher.update(text.as_bytes()).update(b"@").update(address.as_bytes());
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(blake3::derive_key(SECRET_CONTEXT, secret))
    }

    /// As it was stored.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }

    /// To be stored.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(&self.0)
    }
}

/// In constant time.
impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(Role::Learner, 4, [0xab; 32], "10.0.0.1:7401".to_owned()).unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_printed_and_says_no_secret_in_a_log() {
        let one = token();
        let text = one.to_string();
        assert_eq!(text.parse::<JoinToken>().unwrap(), one);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), one);
        assert_ne!(text, token().to_string());
        assert_eq!(format!("{one:?}"), "JoinToken(learner 4 at 10.0.0.1:7401)");
        assert_eq!(SecretHash::from_hex(&one.secret_hash().to_hex()), Some(one.secret_hash()));
        assert_ne!(one.secret_hash(), token().secret_hash());
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let text = token().to_string();
        for at in 0..text.len() {
            let (head, tail) = (&text[..at], &text[at + 1..]);
            assert!(format!("{head}{tail}").parse::<JoinToken>().is_err(), "without {at}");
            let other = if text[at..].starts_with('5') { '6' } else { '5' };
            assert!(format!("{head}{other}{tail}").parse::<JoinToken>().is_err(), "{other} at {at}");
        }
    }

    #[test]
    fn only_nodes_join() {
        for role in ["admin", "agent", "client", ""] {
            let text = token().to_string().replace("learner", role);
            assert_eq!(text.parse::<JoinToken>(), Err(TokenError("its role is neither learner nor voter")));
        }
    }
}
