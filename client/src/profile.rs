//! Where a cluster is and who we are to it: `client.toml`.
//!
//! ```toml
//! cluster = "team"
//! endpoints = ["10.0.0.1:7201", "10.0.0.2:7201"]
//! ca = "ca.pem"            # relative paths start at the file's folder
//! cert = "client-ann.pem"
//! key = "client-ann.key"
//! ```
//! Unknown keys are refused. Reading a profile reaches no network; certificates are checked when a client is made of it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zyflow_crypto::TlsFiles;

/// Most endpoints in a profile: a cluster has a handful of nodes, and a wrong file shouldn't make us call thousands.
pub const ENDPOINTS_MAX: usize = 64;

/// A checked profile; its paths are absolute, or relative to the current folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The cluster's name, as in every certificate.
    pub cluster: String,
    /// `HOST:PORT` of the API of one or more nodes; the first is asked first.
    pub endpoints: Vec<String>,
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no usable profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No file was named, and there is none in the usual place.
    #[error(
        "no profile: {} doesn't exist; name one with --profile FILE or ZYFLOW_PROFILE (`zyflow dev` writes client.toml \
         into its folder)",
        .0.display()
    )]
    None(PathBuf),
    /// The file can't be read.
    #[error("cannot read the profile {}: {source}; check the path and the file's mode", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the TOML that it should be.
    #[error("the profile {} is malformed: {}", path.display(), source.message())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that can't be right.
    #[error("the profile {}: {problem}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

impl Profile {
    /// Reads and checks a profile.
    ///
    /// # Errors
    /// Where it can't be read, is malformed, or names no endpoint.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let read = |source| ProfileError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let malformed = |source| ProfileError::Malformed { path: path.to_owned(), source: Box::new(source) };
        let mut profile: Self = toml::from_str(&text).map_err(malformed)?;
        profile.check().map_err(|problem| ProfileError::Invalid { path: path.to_owned(), problem })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut profile.ca, &mut profile.cert, &mut profile.key] {
            *file = folder.join(&*file);
        }
        Ok(profile)
    }

    /// Where a profile is looked for if none is named: `zyflow/client.toml` in the user's configuration folder.
    #[must_use]
    pub fn default_path() -> PathBuf {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        folder.unwrap_or_default().join("zyflow/client.toml")
    }

    /// The certificate files.
    #[must_use]
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() }
    }

    fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            let found = self.endpoints.len();
            return Err(format!(
                "`endpoints` has {found} addresses: write 1 to {ENDPOINTS_MAX} of them as \"HOST:PORT\""
            ));
        }
        for address in &self.endpoints {
            let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !address.contains(['/', '@', ' '])
            });
            if !is_address {
                return Err(format!("`{address}` in `endpoints` is no address: write \"HOST:PORT\", without https://"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const GOOD: &str = r#"
cluster = "dev"
endpoints = ["127.0.0.1:7201", "[::1]:7202"]
ca = "certs/ca.pem"
cert = "/abs/client.pem"
key = "client.key"
"#;

    fn load(text: &str) -> (tempfile::TempDir, Result<Profile, ProfileError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.toml");
        std::fs::write(&path, text).unwrap();
        let loaded = Profile::load(&path);
        (dir, loaded)
    }

    fn check(text: &str, expected: &Expect) {
        let (dir, loaded) = load(text);
        expected.assert_eq(&loaded.unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR"));
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        let (dir, loaded) = load(GOOD);
        let profile = loaded.unwrap();
        assert_eq!(profile.ca, dir.path().join("certs/ca.pem"));
        assert_eq!(profile.cert, Path::new("/abs/client.pem"));
        assert_eq!(profile.endpoints, ["127.0.0.1:7201", "[::1]:7202"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        check(
            "cluster = ",
            &expect!["the profile DIR/client.toml is malformed: string values must be quoted, expected literal string"],
        );
        check(
            &format!("colour = 1\n{GOOD}"),
            &expect![
                "the profile DIR/client.toml is malformed: unknown field `colour`, expected one of `cluster`, `endpoints`, `ca`, `cert`, `key`"
            ],
        );
        check(
            &GOOD.replace("[\"127.0.0.1:7201\", \"[::1]:7202\"]", "[]"),
            &expect![[
                r#"the profile DIR/client.toml: `endpoints` has 0 addresses: write 1 to 64 of them as "HOST:PORT""#
            ]],
        );
        for bad in ["127.0.0.1", "https://a:1", ":7201", "a:0", "a:99999", "a b:1"] {
            let (_dir, loaded) = load(&GOOD.replace("[::1]:7202", bad));
            assert!(matches!(loaded, Err(ProfileError::Invalid { .. })), "{bad}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Profile::load(Path::new("/nonexistent/client.toml")).unwrap_err();
        assert!(matches!(&missing, ProfileError::Read { path, .. } if path.ends_with("client.toml")), "{missing}");
    }
}
