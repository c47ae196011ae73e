//! New nodes: tokens for them, kept by the one node that has the CA's key, and the certificates that they get for those.
//!
//! ```text
//!   data folder/join/4.json      { role, hash of the secret, good until, hash of the key that took it }
//! ```
//! A token lets in one key. Which one is on the disk before anything is signed, so whoever asks with another key later, after a crash
//! too, is refused. And so is the first key, where a member has got the token's id in another way meanwhile. What was taken is kept for
//! good, as the record of who got a certificate, and because its id is used up. Files alone, since a token is good only where the CA's key
//! is; time is this machine's.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zyflow_crypto::join::{Authority, AuthorityError, JoinToken, Request, SecretHash};
use zyflow_crypto::{Identity, RandomError, Role};

use crate::cluster::wall_clock_ms;
use crate::config::Join;

/// Tokens that are good at one time. Nobody lets in more machines at once by hand.
const TOKENS_MAX: usize = 64;

/// Longest life of a token: a day. It is carried by people, who put it into notes.
pub const TTL_MAX: Duration = Duration::from_hours(24);

/// Why there is no token, or no certificate for one.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// The CA's key.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No randomness, no secret.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// What is kept of tokens can't be read or written.
    #[error("the token's file {path}: {source}; check the data folder's disk and mode")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Many tokens that nobody takes.
    #[error("{TOKENS_MAX} join tokens are good already: use them, or wait until they have expired")]
    TooMany,
    /// Wrong id, wrong secret, or another node's token: not told which.
    #[error("this token isn't known here: make one with `zyflow cluster token` on the node that it names")]
    Unknown,
    /// Too late.
    #[error("the token for node {0} has expired: make a new one with `zyflow cluster token`")]
    Expired(u64),
    /// Somebody else was here before.
    #[error(
        "the token for node {0} was used already, with another key: if that wasn't you, somebody has a certificate of this cluster; if \
         `zyflow cluster status` shows node {0}, take it out with `zyflow cluster remove {0}`, and replace the CA; then make a new token"
    )]
    Used(u64),
    /// A member got the id in another way.
    #[error(
        "node {0} is a member already, or was one: this token is good for nothing; make a new one with `zyflow cluster token`"
    )]
    Taken(u64),
}

/// What is kept of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    node_id: u64,
    role: String,
    /// Of the secret.
    hash: String,
    expires_ms: u64,
    /// SHA-256 of the public key that took it.
    key: Option<String>,
}

/// The tokens of this node, and the CA's key.
#[derive(Debug)]
pub struct Joining {
    authority: Authority,
    cluster: String,
    address: String,
    folder: PathBuf,
    /// Held while a token's file is read and written again.
    turn: Mutex<()>,
}

impl Joining {
    /// Reads the CA's key.
    ///
    /// # Errors
    /// It can't be used, or is of none of the CAs in `ca`; the folder can't be made.
    pub fn open(config: &Join, cluster: &str, ca: &Path, folder: PathBuf) -> Result<Self, JoiningError> {
        let authority = Authority::load(ca, &config.ca_key)?;
        std::fs::create_dir_all(&folder).map_err(file_error(&folder))?;
        let (cluster, address) = (cluster.to_owned(), config.advertise.clone());
        Ok(Self { authority, cluster, address, folder, turn: Mutex::new(()) })
    }

    /// A new token, for the first id above all of `ids` and above those of other tokens; and until when it is good, in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// Too many are good already, or it can't be stored.
    pub fn make(&self, role: Role, ids: &BTreeSet<u64>, ttl: Duration) -> Result<(JoinToken, u64), JoiningError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall_clock_ms();
        let mut ids = ids.clone();
        let mut good = 0;
        for kept in self.all()? {
            if kept.key.is_none() && kept.expires_ms <= now {
                let path = self.path(kept.node_id);
                std::fs::remove_file(&path).map_err(file_error(&path))?;
                continue;
            }
            good += usize::from(kept.key.is_none());
            ids.insert(kept.node_id);
        }
        if good >= TOKENS_MAX {
            return Err(JoiningError::TooMany);
        }
        let node_id = ids.last().map_or(1, |last| last + 1);
        let token = JoinToken::new(role, node_id, self.authority.hash(), self.address.clone())?;
        let ttl = u64::try_from(ttl.min(TTL_MAX).as_millis()).unwrap_or(u64::MAX);
        let (role, hash) = (role.to_string(), token.secret_hash().to_hex());
        let kept = Kept { node_id, role, hash, expires_ms: now.saturating_add(ttl), key: None };
        self.store(&kept)?;
        Ok((token, kept.expires_ms))
    }

    /// Whether this is the secret of a token that no key has taken yet: then [`Joining::redeem`] has to be told which ids there are.
    ///
    /// # Errors
    /// The token isn't known, or its file can't be read.
    pub fn is_unused(&self, node_id: u64, secret: &[u8]) -> Result<bool, JoiningError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.kept(node_id, secret)?.key.is_none())
    }

    /// The certificate, in PEM, for whoever has the secret of a token and the key of `request`. `ids` are those that members have or had;
    /// without them only the key that took the token gets one.
    ///
    /// # Errors
    /// The token isn't known, has expired, was taken by another key, or its id is one of `ids`; the request can't be read; the files
    /// can't be written.
    pub fn redeem(
        &self,
        node_id: u64,
        secret: &[u8],
        request: &[u8],
        ids: Option<&BTreeSet<u64>>,
    ) -> Result<String, JoiningError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.kept(node_id, secret)?;
        let role = Role::ALL.into_iter().find(|role| role.as_str() == kept.role).ok_or(JoiningError::Unknown)?;
        let request = Request::parse(request)?;
        let key = blake3::Hash::from_bytes(request.key_hash()).to_hex().to_string();
        match &kept.key {
            Some(first) if *first != key => return Err(JoiningError::Used(node_id)),
            _ if kept.expires_ms <= wall_clock_ms() => return Err(JoiningError::Expired(node_id)),
            Some(_) => {}
            None if ids.is_none_or(|ids| ids.contains(&node_id)) => return Err(JoiningError::Taken(node_id)),
            None => {
                kept.key = Some(key);
                self.store(&kept)?;
            }
        }
        let identity = Identity { cluster: self.cluster.clone(), role, node_id };
        Ok(self.authority.certify(request, &identity)?)
    }

    /// What is kept of a token, for whoever has its secret.
    fn kept(&self, node_id: u64, secret: &[u8]) -> Result<Kept, JoiningError> {
        let kept = read(&self.path(node_id))?.ok_or(JoiningError::Unknown)?;
        let is_its = SecretHash::from_hex(&kept.hash) == Some(SecretHash::of(secret));
        if is_its { Ok(kept) } else { Err(JoiningError::Unknown) }
    }

    fn path(&self, node_id: u64) -> PathBuf {
        self.folder.join(format!("{node_id}.json"))
    }

    fn all(&self) -> Result<Vec<Kept>, JoiningError> {
        let failed = file_error(&self.folder);
        let entries = std::fs::read_dir(&self.folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let paths = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.filter_map(|path| read(&path).transpose()).collect()
    }

    fn store(&self, kept: &Kept) -> Result<(), JoiningError> {
        let path = self.path(kept.node_id);
        let stored = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            serde_json::to_writer(&mut file, kept)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        stored().map_err(file_error(&path))
    }
}

fn read(path: &Path) -> Result<Option<Kept>, JoiningError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from).map_err(file_error(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path)(error)),
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> JoiningError {
    move |source| JoiningError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use zyflow_crypto::join::NodeKey;

    struct Place {
        folder: tempfile::TempDir,
        config: Join,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let ca_key = folder.path().join("ca.key");
            std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
            std::fs::write(&ca_key, ca.key().serialize_pem()).unwrap();
            std::fs::set_permissions(&ca_key, Permissions::from_mode(0o600)).unwrap();
            let listen = "127.0.0.1:7401".parse().unwrap();
            Self { folder, config: Join { listen, advertise: "127.0.0.1:7401".to_owned(), ca_key } }
        }

        /// As after a start of the node.
        fn open(&self) -> Joining {
            let ca = self.folder.path().join("ca.pem");
            Joining::open(&self.config, "team", &ca, self.folder.path().join("join")).unwrap()
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    /// Members that have no id which a token is for.
    static NOBODY: BTreeSet<u64> = BTreeSet::new();

    fn request() -> Vec<u8> {
        NodeKey::generate().unwrap().request().unwrap()
    }

    #[test]
    fn a_token_is_good_for_one_key_also_after_a_restart() {
        let place = Place::new();
        let (token, expires_ms) = place.open().make(Role::Learner, &BTreeSet::from([1, 2, 3]), HOUR).unwrap();
        assert_eq!((token.role, token.node_id), (Role::Learner, 4));
        assert!(expires_ms > wall_clock_ms());
        let (mine, theirs) = (request(), request());
        let wrong = place.open().redeem(4, &[7; 16], &theirs, Some(&NOBODY));
        assert!(matches!(wrong, Err(JoiningError::Unknown)), "{wrong:?}");
        let wrong = place.open().redeem(5, token.secret(), &theirs, Some(&NOBODY));
        assert!(matches!(wrong, Err(JoiningError::Unknown)), "{wrong:?}");
        // A request that can't be read uses nothing up.
        let wrong = place.open().redeem(4, token.secret(), b"no request", Some(&NOBODY));
        assert!(matches!(wrong, Err(JoiningError::Authority(_))), "{wrong:?}");

        for _ in 0..2 {
            assert!(
                place.open().redeem(4, token.secret(), &mine, Some(&NOBODY)).unwrap().contains("BEGIN CERTIFICATE")
            );
        }
        let used = place.open().redeem(4, token.secret(), &theirs, Some(&NOBODY));
        assert!(matches!(used, Err(JoiningError::Used(4))), "{used:?}");
        let kept = std::fs::read_to_string(place.folder.path().join("join/4.json")).unwrap();
        assert!(!token.to_string().contains(kept.split("\"hash\":\"").nth(1).unwrap().split('"').next().unwrap()));
    }

    #[test]
    fn a_token_expires_and_its_id_is_free_again_unless_it_was_used() {
        let place = Place::new();
        let joining = place.open();
        let (used, _) = joining.make(Role::Voter, &BTreeSet::from([1]), HOUR).unwrap();
        joining.redeem(2, used.secret(), &request(), Some(&NOBODY)).unwrap();
        let (late, _) = joining.make(Role::Learner, &BTreeSet::from([1]), Duration::ZERO).unwrap();
        assert_eq!((used.node_id, late.node_id), (2, 3));
        let expired = joining.redeem(3, late.secret(), &request(), Some(&NOBODY));
        assert!(matches!(expired, Err(JoiningError::Expired(3))), "{expired:?}");
        let (next, _) = joining.make(Role::Learner, &BTreeSet::from([1]), HOUR).unwrap();
        assert_eq!(next.node_id, 3);
        let old = joining.redeem(3, late.secret(), &request(), Some(&NOBODY));
        assert!(matches!(old, Err(JoiningError::Unknown)), "{old:?}");
        let (other, expires_ms) = joining.make(Role::Learner, &BTreeSet::from([1]), HOUR * 1_000).unwrap();
        assert_eq!(other.node_id, 4);
        assert!(expires_ms <= wall_clock_ms() + 24 * 3_600_000, "a day at most");
    }

    #[test]
    fn an_id_that_a_member_got_in_another_way_isnt_certified_again() {
        let place = Place::new();
        let joining = place.open();
        let (token, _) = joining.make(Role::Learner, &BTreeSet::from([1]), HOUR).unwrap();
        let (mine, by_hand) = (request(), BTreeSet::from([1, 2]));
        assert!(joining.is_unused(2, token.secret()).unwrap());
        assert!(matches!(joining.is_unused(2, &[7; 16]), Err(JoiningError::Unknown)));
        for ids in [Some(&by_hand), None] {
            let refused = joining.redeem(2, token.secret(), &mine, ids);
            assert!(matches!(refused, Err(JoiningError::Taken(2))), "{ids:?}: {refused:?}");
        }
        assert!(joining.is_unused(2, token.secret()).unwrap(), "no key took it");
        joining.redeem(2, token.secret(), &mine, Some(&NOBODY)).unwrap();
        assert!(!joining.is_unused(2, token.secret()).unwrap());
        // Its own node is a member now, and may have lost the answer.
        joining.redeem(2, token.secret(), &mine, Some(&by_hand)).unwrap();
        joining.redeem(2, token.secret(), &mine, None).unwrap();
    }

    #[test]
    fn there_are_only_so_many() {
        let place = Place::new();
        let joining = place.open();
        for _ in 0..TOKENS_MAX {
            joining.make(Role::Learner, &BTreeSet::new(), HOUR).unwrap();
        }
        let refused = joining.make(Role::Learner, &BTreeSet::new(), HOUR);
        assert!(matches!(refused, Err(JoiningError::TooMany)), "{refused:?}");
    }
}
