//! The node's one configuration file, read and checked once at start.
//!
//! Unknown keys are refused, values carry units, and every error names the key and what to write instead. Command-line flags
//! and `ZYFLOW_*` variables over the file are applied by `main`. `deploy/zyflowd.example.toml` shows every key; a test keeps
//! its optional keys equal to the defaults here.

use serde::{Deserialize, Deserializer, de::Error as _};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// All that `zyflowd` needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is and where its data lies.
    pub node: Node,
    /// Certificates.
    pub tls: Tls,
    /// The port other nodes call.
    pub peer: Endpoint,
    /// The port clients call.
    pub api: Endpoint,
    /// The port of metrics and health.
    pub http: Http,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// How the node watches over its own state.
    #[serde(default)]
    pub digest: Digest,
    /// Answers that are kept.
    #[serde(default)]
    pub cache: Cache,
    /// Who is told what.
    #[serde(default)]
    pub notify: Notify,
    /// Where new nodes get their certificates; on the node that has the CA's key.
    #[serde(default)]
    pub join: Option<Join>,
}

/// Where new nodes get their certificates, for tokens that this node made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// What is bound, `IP:PORT`. Open to callers without a certificate.
    pub listen: SocketAddr,
    /// What tokens say, `HOST:PORT`.
    pub advertise: String,
    /// The key of the CA, mode 0600, outside the data folder.
    pub ca_key: PathBuf,
}

/// Answers that are kept, by what was asked and at which revision.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Whether any are.
    pub enabled: bool,
    /// Bytes of answers in this node's memory.
    pub answers_bytes_max: ByteSize,
    /// A Redis that nodes share, `redis://HOST:PORT`; empty = none.
    pub redis: Address,
    /// How long Redis keeps an answer.
    pub redis_keep: Span,
}

/// An address that may hold a password: not shown where a configuration is.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "set" })
    }
}

/// Shortest time that Redis is told to keep an answer for: below that nobody finds it.
const REDIS_KEEP_MIN: Duration = Duration::from_secs(1);

/// Shortest time between two looks at the digest.
const DIGEST_PERIOD_MIN: Duration = Duration::from_millis(100);

/// How the node watches over its own state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Digest {
    /// How often its digest is compared with the other voters'.
    pub compare: Span,
    /// How often it is computed again from SQLite, and then compared.
    pub recompute: Span,
    /// Rows that are read for that in a second.
    pub rows_per_second: u64,
}

/// Who is told what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// An `http://` or `https://` address that is told of open conflicts; empty = nobody.
    pub webhook: String,
}

/// Who this node is and where its data lies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// From 1 up; never used again once a node has left.
    pub id: u64,
    /// The cluster's name, as in every certificate.
    pub cluster: String,
    /// The id of the cluster's history: the same UUID on every node.
    pub lineage: String,
    /// The data folder: made at the first start.
    pub data: PathBuf,
    /// The data key, outside the data folder, mode 0600.
    pub key_file: PathBuf,
}

/// Certificates, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Whom we trust.
    pub ca: PathBuf,
    /// Who we are.
    pub cert: PathBuf,
    /// The key of `cert`, mode 0600.
    pub key: PathBuf,
}

/// A port and how others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// What is bound, `IP:PORT`.
    pub listen: SocketAddr,
    /// What others are told to call, `HOST:PORT`.
    pub advertise: String,
}

/// The port of metrics and health. It shows no contents, and has no TLS: keep it on loopback or a private network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// What is bound, `IP:PORT`.
    pub listen: SocketAddr,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level or `tracing` filter directives.
    pub level: String,
    /// One JSON object per line, or text.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One object per line.
    Json,
    /// For reading.
    Text,
}

/// Bounds on what the node takes in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Proposals are refused while the log's disk has less than this left.
    pub disk_free_min: ByteSize,
    /// Proposals are refused while SQLite is more than this many row changes behind.
    pub backlog_ops_max: usize,
    /// How often a checkout is scanned in full even if no change was seen.
    pub rescan_interval: Span,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json }
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            compare: Span(Duration::from_secs(30)),
            recompute: Span(Duration::from_mins(30)),
            rows_per_second: 20_000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            answers_bytes_max: ByteSize(64 << 20),
            redis: Address::default(),
            redis_keep: Span(Duration::from_mins(10)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_free_min: ByteSize(64 << 20),
            backlog_ops_max: 200_000,
            rescan_interval: Span(Duration::from_mins(1)),
        }
    }
}

/// A number of bytes, written `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A duration, written `150ms`, `60s` or `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The number in front and the unit behind.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split_unit(text).and_then(|(number, unit)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift)
        });
        parsed.map(Self).ok_or_else(|| format!("`{text}` is not a size: write it with its unit, for example \"64MiB\""))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split_unit(text).and_then(|(number, unit)| match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
            _ => None,
        });
        parsed
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a duration: write it with its unit, for example \"150ms\""))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}; give its path with --config")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file isn't TOML, misses a key, has one too many or a bad value.
    #[error("the configuration {path} can't be used: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where in it and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that is well-formed and still wrong.
    #[error("the configuration {path} can't be used: {key}: {reason}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong and what to write instead.
        reason: String,
    },
}

impl Config {
    /// Reads and checks the file. Relative paths in it are taken from the file's own folder.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let files = [&mut config.node.data, &mut config.node.key_file];
        let certificates = [&mut config.tls.ca, &mut config.tls.cert, &mut config.tls.key];
        let authority = config.join.iter_mut().map(|join| &mut join.ca_key);
        for file in files.into_iter().chain(certificates).chain(authority) {
            *file = folder.join(&*file);
        }
        config.check().map_err(|(key, reason)| ConfigError::Invalid { path: path.into(), key, reason })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.node.id == 0 {
            return Err(("node.id", "ids begin at 1".to_owned()));
        }
        if self.node.cluster.is_empty()
            || !self.node.cluster.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            let reason =
                format!("`{}`: use lower-case letters, digits and `-`, as in the certificates", self.node.cluster);
            return Err(("node.cluster", reason));
        }
        let advertised = [("peer.advertise", &self.peer.advertise), ("api.advertise", &self.api.advertise)];
        let join = self.join.iter().map(|join| ("join.advertise", &join.advertise));
        for (key, advertise) in advertised.into_iter().chain(join) {
            let port = advertise
                .rsplit_once(':')
                .and_then(|(host, port)| if host.is_empty() { None } else { port.parse::<u16>().ok() });
            if port.is_none_or(|port| port == 0) {
                return Err((key, format!("`{advertise}` is not HOST:PORT")));
            }
        }
        let periods = [("digest.compare", self.digest.compare), ("digest.recompute", self.digest.recompute)];
        if let Some((key, _)) = periods.into_iter().find(|(_, period)| period.0 < DIGEST_PERIOD_MIN) {
            return Err((key, format!("at least {DIGEST_PERIOD_MIN:?}: the other nodes are asked each time")));
        }
        if self.digest.rows_per_second == 0 {
            return Err(("digest.rows_per_second", "at least 1, or the reading never ends".to_owned()));
        }
        if self.cache.redis_keep.0 < REDIS_KEEP_MIN {
            return Err(("cache.redis_keep", format!("at least {REDIS_KEEP_MIN:?}, or nobody finds what is kept")));
        }
        let mut ports = vec![self.peer.listen, self.api.listen, self.http.listen];
        ports.extend(self.join.iter().map(|join| join.listen));
        ports.sort_unstable();
        if ports.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(("api.listen", "peer, api, http and join need an address each".to_owned()));
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/zyflowd.example.toml");

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zyflowd.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn the_example_file_equals_the_defaults() {
        let example = load(EXAMPLE).unwrap();
        assert_eq!(
            (example.log, example.limits, example.digest),
            (Log::default(), Limits::default(), Digest::default())
        );
    }

    #[test]
    fn bad_files_are_refused_with_the_key_and_a_way_out() {
        let cases = [
            ("[node]", "[node]\ncolour = 1", "unknown field `colour`"),
            ("id = 1", "id = 0", "node.id: ids begin at 1"),
            ("id = 1", "", "missing field `id`"),
            ("\"127.0.0.1:7101\"", "\"localhost\"", "invalid socket address"),
            ("advertise = \"127.0.0.1:7201\"", "advertise = \"nowhere\"", "api.advertise: `nowhere` is not HOST:PORT"),
            ("cluster = \"example\"", "cluster = \"My Team\"", "node.cluster: `My Team`: use lower-case letters"),
            ("disk_free_min = \"64MiB\"", "disk_free_min = \"64\"", "`64` is not a size"),
            ("rescan_interval = \"60s\"", "rescan_interval = \"1 week\"", "`1 week` is not a duration"),
            ("compare = \"30s\"", "compare = \"0s\"", "digest.compare: at least 100ms"),
            ("redis_keep = \"10m\"", "redis_keep = \"10ms\"", "cache.redis_keep: at least 1s"),
            ("rows_per_second = 20000", "rows_per_second = 0", "digest.rows_per_second: at least 1"),
            ("listen = \"127.0.0.1:7301\"", "listen = \"127.0.0.1:7101\"", "need an address each"),
            (
                "\n[notify]\n",
                "\n[join]\nlisten = \"127.0.0.1:7101\"\nadvertise = \"a:1\"\nca_key = \"k\"\n[notify]\n",
                "need an address each",
            ),
            (
                "\n[notify]\n",
                "\n[join]\nlisten = \"127.0.0.1:7401\"\nadvertise = \"a\"\nca_key = \"k\"\n[notify]\n",
                "join.advertise: `a` is not HOST:PORT",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(EXAMPLE.contains(from), "{from} is not in the example");
            let error = load(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
    }
}
