//! The second level: a Redis that nodes share. It may be slow, gone, full of somebody else's values or in somebody else's hands; a read
//! never fails because of it, and hardly waits.
//!
//! ```text
//!   get ─▶ breaker ─▶ connected? ─▶ GETRANGE, at most VALUE_BYTES_MAX, within ASK_WITHIN ─▶ open, for this key ─▶ answer
//!            │ open       │ no: connect beside, this one is a miss      │ late, error           │ damaged, foreign
//!            └────────────┴──────────────── miss ◀──────────────────────┴───────────────────────┘
//!   put ─▶ beside, at most PUTS_MAX at once, on a connection of its own: a large answer never stands before a question
//! ```
//!
//! Values are sealed under the cluster's data key, and each names its key within what is sealed: so a value that was altered, moved to
//! another key or made by another cluster doesn't open, and counts as a miss. They go away by themselves after a time. All of it runs
//! on the threads that may wait, never on the one that keeps the cluster together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use zyflow_crypto::{KeyRing, Lineage, Purpose};

use super::breaker::Breaker;
use super::key::Key;
use crate::metrics::{AnswerResult, Level, Metrics};

/// How long a read waits for what it may find: a fifth of what the first list of 10,000 tasks of the past takes.
const ASK_WITHIN: Duration = Duration::from_millis(25);

/// How long a connection may take; no read waits for one.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How long keeping an answer may take; no read waits for it.
const PUT_WITHIN: Duration = Duration::from_millis(250);

/// How long Redis may take to answer; what takes longer has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within {
    /// A question, also the one that a new connection is tried with.
    pub(super) ask: Duration,
    /// Keeping an answer.
    pub(super) put: Duration,
}

/// What is right for reads of people who wait.
pub(super) const WITHIN: Within = Within { ask: ASK_WITHIN, put: PUT_WITHIN };

/// Answers on their way to Redis at once; more aren't kept.
const PUTS_MAX: usize = 4;

/// Largest value that is kept or taken: a list of some 20,000 tasks, half of what is ever sealed.
const VALUE_BYTES_MAX: usize = 4 << 20;

/// Pause between two warnings of damaged values: whoever fills a Redis with them shall not fill the log too.
const WARNED_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Shared {
    link: Arc<Link>,
    runtime: Handle,
}

struct Link {
    client: Client,
    ring: Arc<KeyRing>,
    lineage: Lineage,
    kept_for: Duration,
    within: Within,
    breaker: Mutex<Breaker>,
    connected: Mutex<Option<Connections>>,
    is_connecting: AtomicBool,
    puts: Arc<Semaphore>,
    warned: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Connections {
    asking: MultiplexedConnection,
    keeping: MultiplexedConnection,
}

/// What Redis had.
enum Found {
    Answer(Bytes),
    Nothing,
    /// Something that isn't ours, or isn't any more.
    Damaged(String),
}

impl Shared {
    /// Of the server at `address`; doesn't wait for it.
    pub(super) fn new(
        address: &str,
        kept_for: Duration,
        (ring, lineage): (Arc<KeyRing>, Lineage),
        runtime: Handle,
        within: Within,
    ) -> Result<Self, RedisError> {
        let link = Link {
            client: Client::open(address)?,
            ring,
            lineage,
            kept_for,
            within,
            breaker: Mutex::new(Breaker::new()),
            connected: Mutex::default(),
            is_connecting: AtomicBool::new(false),
            puts: Arc::new(Semaphore::new(PUTS_MAX)),
            warned: Mutex::default(),
        };
        let link = Arc::new(link);
        // So that the first reads find it.
        drop(link.connections(&runtime));
        Ok(Self { link, runtime })
    }

    /// Where there is no connection one is tried for, as by any read.
    #[cfg(test)]
    pub(super) fn is_connected(&self) -> bool {
        self.link.connections(&self.runtime).is_some()
    }

    /// Whether Redis isn't asked for a while.
    pub(super) fn is_broken(&self) -> bool {
        locked(&self.link.breaker).is_open()
    }

    /// What is kept under `key`, if that is found out in time.
    pub(super) async fn get(&self, key: Key) -> Option<Bytes> {
        let Some(connections) = self.link.connections(&self.runtime) else {
            Metrics::count_answer(Level::Shared, AnswerResult::Skipped);
            return None;
        };
        let link = Arc::clone(&self.link);
        // A task of its own: it reports how it went also where whoever asked has gone.
        let asked = self.runtime.spawn(async move { link.get(connections, key).await });
        // It ends by itself in time; an error means that it panicked or that the node is stopping.
        asked.await.ok().flatten()
    }

    /// Keeps an answer under `key`, beside.
    pub(super) fn put(&self, key: Key, answer: &Bytes) {
        if answer.len() > VALUE_BYTES_MAX {
            return;
        }
        let connections = self.link.connections(&self.runtime);
        let permit = Arc::clone(&self.link.puts).try_acquire_owned();
        let (Some(connections), Ok(permit)) = (connections, permit) else {
            Metrics::count_answer(Level::Shared, AnswerResult::Unkept);
            return;
        };
        let (link, answer) = (Arc::clone(&self.link), answer.clone());
        self.runtime.spawn(async move {
            link.put(connections, key, &answer).await;
            drop(permit);
        });
    }
}

impl Link {
    /// The connections, where the breaker lets through and there are any; else they are made, beside.
    fn connections(self: &Arc<Self>, runtime: &Handle) -> Option<Connections> {
        if !locked(&self.breaker).lets_through(Instant::now()) {
            return None;
        }
        let connected = locked(&self.connected).clone();
        if connected.is_none() && !self.is_connecting.swap(true, Ordering::AcqRel) {
            let link = Arc::clone(self);
            runtime.spawn(async move {
                link.connect().await;
                link.is_connecting.store(false, Ordering::Release);
            });
        }
        connected
    }

    async fn connect(&self) {
        // All limits of time are those of this module, and none of the library's.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = async {
            let asking = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let keeping = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok::<_, RedisError>(Connections { asking, keeping })
        };
        let connections = match timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(connections)) => connections,
            Ok(Err(error)) => return self.failed(&error.to_string()),
            Err(_elapsed) => return self.failed("it doesn't take connections in time"),
        };
        // Somebody who accepts connections may still be too slow to be asked.
        let mut asking = connections.asking.clone();
        match timeout(self.within.ask, redis::cmd("PING").query_async::<()>(&mut asking)).await {
            Ok(Ok(())) => {
                *locked(&self.connected) = Some(connections);
                locked(&self.breaker).succeeded();
                info!("the shared cache is used");
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_elapsed) => self.failed("it doesn't answer in time"),
        }
    }

    async fn get(&self, mut connections: Connections, key: Key) -> Option<Bytes> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(key.name()).arg(0).arg(VALUE_BYTES_MAX + zyflow_crypto::envelope::OVERHEAD_BYTES);
        let found = match timeout(self.within.ask, command.query_async::<Vec<u8>>(&mut connections.asking)).await {
            Ok(Ok(value)) if value.is_empty() => Found::Nothing,
            Ok(Ok(value)) => self.opened(&key, &value),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Found::Damaged(error.to_string()),
            Ok(Err(error)) => {
                Metrics::count_answer(Level::Shared, AnswerResult::Error);
                self.failed(&error.to_string());
                return None;
            }
            Err(_elapsed) => {
                Metrics::count_answer(Level::Shared, AnswerResult::Error);
                self.failed("it doesn't answer in time");
                return None;
            }
        };
        locked(&self.breaker).succeeded();
        match found {
            Found::Answer(answer) => {
                Metrics::count_answer(Level::Shared, AnswerResult::Hit);
                Some(answer)
            }
            Found::Nothing => {
                Metrics::count_answer(Level::Shared, AnswerResult::Miss);
                None
            }
            Found::Damaged(reason) => {
                Metrics::count_answer(Level::Shared, AnswerResult::Damaged);
                self.warn_of_damage(&reason);
                None
            }
        }
    }

    fn opened(&self, key: &Key, sealed: &[u8]) -> Found {
        match zyflow_crypto::open(&self.ring, Purpose::Answer, &self.lineage, sealed) {
            Ok(opened) if opened.entry_id == key.id() => Found::Answer(opened.plaintext.into()),
            Ok(_) => Found::Damaged("it was kept under another key".to_owned()),
            Err(error) => Found::Damaged(error.to_string()),
        }
    }

    async fn put(&self, mut connections: Connections, key: Key, answer: &[u8]) {
        let sealed = zyflow_crypto::seal(&self.ring, Purpose::Answer, &self.lineage, &key.id(), answer);
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => return warn!(%error, "an answer can't be sealed for the shared cache"),
        };
        let millis = u64::try_from(self.kept_for.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("SET");
        command.arg(key.name()).arg(sealed).arg("PX").arg(millis);
        match timeout(self.within.put, command.query_async::<()>(&mut connections.keeping)).await {
            Ok(Ok(())) => Metrics::count_answer(Level::Shared, AnswerResult::Kept),
            Ok(Err(error)) => self.not_kept(&error.to_string()),
            Err(_elapsed) => self.not_kept("it doesn't answer in time"),
        }
    }

    fn not_kept(&self, reason: &str) {
        Metrics::count_answer(Level::Shared, AnswerResult::Unkept);
        self.failed(reason);
    }

    /// Counts a failure; the one that opens the breaker ends the connections, on which late answers may still stand.
    fn failed(&self, reason: &str) {
        let opened = locked(&self.breaker).failed(Instant::now());
        if let Some(pause) = opened {
            locked(&self.connected).take();
            warn!(reason, ?pause, "the shared cache isn't asked for a while: reads go on without it");
        }
    }

    fn warn_of_damage(&self, reason: &str) {
        let mut warned = locked(&self.warned);
        let now = Instant::now();
        if warned.is_none_or(|warned| now.duration_since(warned) >= WARNED_EVERY) {
            *warned = Some(now);
            warn!(reason, "the shared cache holds a value that this cluster didn't make, or that was altered");
        }
    }
}

/// Every step under these locks leaves what they guard whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
