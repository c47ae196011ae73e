//! How much of the history is kept: as command, fact and record.

use super::{ConvertError, required};
use crate::v1;
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_machine::record::{Keep, Retention};

impl From<Keep> for v1::Keep {
    fn from(keep: Keep) -> Self {
        Self { revisions: keep.revisions, age_ms: keep.age_ms }
    }
}

impl From<v1::Keep> for Keep {
    fn from(keep: v1::Keep) -> Self {
        Self { revisions: keep.revisions, age_ms: keep.age_ms }
    }
}

impl From<Retention> for v1::RetentionRecord {
    fn from(retention: Retention) -> Self {
        Self {
            keep: Some(retention.keep.into()),
            horizon: retention.horizon.0,
            horizon_time_ms: retention.horizon_time.0,
        }
    }
}

impl TryFrom<v1::RetentionRecord> for Retention {
    type Error = ConvertError;

    fn try_from(retention: v1::RetentionRecord) -> Result<Self, ConvertError> {
        Ok(Self {
            keep: required("retention.keep", retention.keep)?.into(),
            horizon: Revision(retention.horizon),
            horizon_time: ClusterTime(retention.horizon_time_ms),
        })
    }
}
