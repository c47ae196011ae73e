//! Answers that were given before, by what was asked and at which revision: never stale, as what was true at a revision stays so.
//!
//! ```text
//!   question ─▶ key ─▶ memory ─▶ Redis, where lists of the past are asked ─▶ the tables
//!                        ▲            │ found                                   │ read
//!                        └────────────┴───────────────── kept ◀─────────────────┘
//! ```
//!
//! An answer is kept as the bytes that go over the wire, so that finding it costs a copy and no encoding. Where a cache helps and where it
//! doesn't was measured: docs/adr/0019-answers-are-cached-by-revision.md, and [`Levels`] follows it. All of it can be switched off.
//!
//! Deliberately not here: whether a revision may be read at all. Whoever asks looks at the horizon, before and after.

mod breaker;
mod key;
mod memory;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use zyflow_api::ApiError;
use zyflow_crypto::{KeyRing, Lineage};

use crate::config::Cache;
use crate::metrics::{AnswerResult, Level, Metrics};
use key::Keys;
use memory::Memory;
use shared::{Shared, WITHIN, Within};

pub use key::{Asked, Levels, Scope, depends_on_clock};

/// The address of the shared cache is none.
#[derive(Debug, thiserror::Error)]
#[error("cache.redis is no address of a Redis: write it as redis://HOST:PORT")]
pub struct AddressError(#[source] redis::RedisError);

/// A handle on the answers of a node; clones share them.
#[derive(Clone)]
pub struct Answers {
    /// `None` = switched off.
    levels: Option<Arc<Kept>>,
}

struct Kept {
    keys: Keys,
    memory: Memory,
    shared: Option<Shared>,
}

impl Answers {
    /// As configured. Redis is asked on `runtime`, whose threads may wait.
    ///
    /// # Errors
    /// The address of the shared cache is none.
    pub fn new(
        config: &Cache,
        ring: &Arc<KeyRing>,
        of: (Lineage, &str),
        runtime: &Handle,
    ) -> Result<Self, AddressError> {
        Self::answering(config, ring, of, runtime, WITHIN)
    }

    /// As [`Self::new`], with a Redis that answers so soon.
    fn answering(
        config: &Cache,
        ring: &Arc<KeyRing>,
        (lineage, cluster): (Lineage, &str),
        runtime: &Handle,
        within: Within,
    ) -> Result<Self, AddressError> {
        if !config.enabled {
            return Ok(Self::off());
        }
        let connect = || {
            let sealing = (Arc::clone(ring), lineage);
            Shared::new(&config.redis.0, config.redis_keep.0, sealing, runtime.clone(), within).map_err(AddressError)
        };
        let shared = if config.redis.0.is_empty() { None } else { Some(connect()?) };
        let keys = Keys::new(ring.active(), lineage, cluster);
        Ok(Self { levels: Some(Arc::new(Kept { keys, memory: Memory::new(config.answers_bytes_max.0), shared })) })
    }

    /// None are kept.
    #[must_use]
    pub fn off() -> Self {
        Self { levels: None }
    }

    /// The answer, found or else read and kept. What fails isn't kept.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn find_or<F>(&self, asked: Asked<'_>, read: F) -> Result<Bytes, ApiError>
    where
        F: Future<Output = Result<Bytes, ApiError>>,
    {
        let kept = self.levels.as_ref().filter(|_| asked.levels != Levels::NONE);
        let Some(kept) = kept else { return read.await };
        let key = kept.keys.of(&asked);
        if let Some(answer) = kept.memory.get(&key) {
            Metrics::count_answer(Level::Memory, AnswerResult::Hit);
            return Ok(answer);
        }
        Metrics::count_answer(Level::Memory, AnswerResult::Miss);
        let shared = kept.shared.as_ref().filter(|_| asked.levels.shared);
        if let Some(shared) = shared
            && let Some(answer) = shared.get(key).await
        {
            kept.memory.put(key, &answer);
            return Ok(answer);
        }
        let answer = read.await?;
        kept.memory.put(key, &answer);
        if let Some(shared) = shared {
            shared.put(key, &answer);
        }
        Ok(answer)
    }

    /// Bytes of answers in memory, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.levels.as_ref().map_or(0, |kept| kept.memory.bytes())
    }

    /// Whether there is a shared cache that isn't asked for a while.
    #[must_use]
    pub fn is_shared_broken(&self) -> bool {
        let shared = self.levels.as_ref().and_then(|kept| kept.shared.as_ref());
        shared.is_some_and(Shared::is_broken)
    }
}
