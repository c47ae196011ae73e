//! How much of the history is kept, and from where on it is.

use crate::id::{ClusterTime, Revision};
use serde::{Deserialize, Serialize};

/// How much of the history is kept at least; what both leave out is let go of (docs/adr/0017). `None` in both = all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// So many revisions back from the newest.
    pub revisions: Option<u64>,
    /// So many milliseconds back, by the cluster's clock.
    pub age_ms: Option<u64>,
}

impl Keep {
    /// Whether nothing is ever let go of by itself.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.revisions.is_none() && self.age_ms.is_none()
    }
}

/// The one record that says where the history begins. Before anybody set it there is none, and all is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// What is kept from now on.
    pub keep: Keep,
    /// The oldest revision that can be read.
    pub horizon: Revision,
    /// The cluster's time at the horizon: a time before it can't be asked for.
    pub horizon_time: ClusterTime,
}

impl Retention {
    /// What the one record is ordered and found by.
    pub const ORDER: &[u8] = b"retention";
}
