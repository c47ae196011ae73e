//! Backups from the outside: objects that a node makes are fetched, checked and kept, each only if no other has its place.
//!
//! ```text
//!   last object there is ──> node: what came after it? ──> bytes in memory ──> whole? the next one? ──> place, if its name is free
//!         ^                                                                                               |
//!         +-----------------------------------------------------------------------------------------------+
//!                                    until the node's state at the first question is covered
//! ```
//!
//! Two that do this at once meet in a name: one of them is told that the other was there. What was kept before a break is gone on with by
//! the next run. No key is needed or held here; what needs one is `zyflowd backup`'s.

pub mod place;

use crate::channel::status_error;
use crate::client::Client;
use crate::error::ClientError;
use place::{Kept, Place, PlaceError};
use std::time::Duration;
use tokio::time::timeout;
use zyflow_api::v1::backup_client::BackupClient;
use zyflow_api::v1::read_backup_request::After;
use zyflow_api::v1::read_backup_response::{Begun, Item};
use zyflow_api::v1::{ReadBackupRequest, ReadBackupResponse};
use zyflow_api::{ConvertError, MESSAGE_BYTES_MAX};
use zyflow_crypto::backup::{Checked, ObjectError, check, may_begin, object_name};

/// Bytes of one object, at most: one of 32 MiB, and a revision of a million rows of 2 KiB at its end.
const OBJECT_BYTES_MAX: usize = 2 << 30;

/// Why a backup can't be made, listed or verified.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The node.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Where the objects are.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An object that is there is wrong by itself or in its place.
    #[error("object {} in {place}: {source}", object_name(*.number))]
    Object {
        /// Its number.
        number: u32,
        /// Where.
        place: String,
        /// What is wrong.
        source: ObjectError,
    },
    /// What a node sent isn't an object, or not the next one.
    #[error("what {address} sent can't be kept: {source}; try again, or ask another node with --node")]
    Sent {
        /// The node.
        address: String,
        /// What is wrong.
        source: ObjectError,
    },
    /// A revision that is too large for one object.
    #[error(
        "{address} sent more than {} MiB of an object, and that is what one may have: a revision is never divided, and one \
         changed that much; what was kept before it is good",
        OBJECT_BYTES_MAX >> 20
    )]
    TooLarge {
        /// The node.
        address: String,
    },
    /// Somebody else was faster.
    #[error(
        "object {} came into being in {place} meanwhile: another backup is being made there. Nothing was overwritten; run this \
         again after it",
        object_name(*.number)
    )]
    Taken {
        /// Its number.
        number: u32,
        /// Where.
        place: String,
    },
    /// There is none.
    #[error("{0} holds no object of a backup: `zyflow backup create` makes the first")]
    Empty(String),
}

/// An object that was kept.
#[derive(Clone, Debug)]
pub struct Made {
    /// What it says of itself.
    pub checked: Checked,
    /// The node that made it.
    pub node: u64,
}

/// What a backup covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Everything up to this revision.
    pub revision: u64,
    /// Each time it was asked, also where there was nothing new, the node knew all that was acknowledged before.
    pub is_current: bool,
}

impl Client {
    /// Brings a backup up to what the asked node knows now; `full` = by a new chain. `made` is told of each object as it is kept. `within` is
    /// how long the node or the place may take for one step. Gives what is covered, as far as the node has applied anything.
    ///
    /// # Errors
    /// What was kept before it failed stays, and is gone on with.
    pub async fn back_up(
        &self,
        place: &Place,
        full: bool,
        within: Duration,
        mut made: impl FnMut(Made),
    ) -> Result<Covered, BackupError> {
        let mut last = newest(place).await?;
        let (mut full, mut goal, mut is_current) = (full, None, true);
        loop {
            let (begun, object) = self.read_object(last.as_ref(), full, within).await?;
            is_current &= begun.current;
            let goal = *goal.get_or_insert(begun.newest);
            let Some(object) = object else { return Ok(Covered { revision: begun.newest, is_current }) };
            let sent = |source| BackupError::Sent { address: self.address(self.preferred()).to_owned(), source };
            let checked = check(object.as_slice()).map_err(sent)?;
            let follows =
                last.as_ref().map_or_else(|| may_begin(&checked.header), |last| last.precedes(&checked.header));
            follows.map_err(sent)?;
            let number = checked.header.number;
            if place.keep(number, object).await? == Kept::Taken {
                return Err(BackupError::Taken { number, place: place.to_string() });
            }
            made(Made { checked: checked.clone(), node: begun.node_id });
            if checked.header.last >= goal && checked.header.is_settled {
                return Ok(Covered { revision: checked.header.last, is_current });
            }
            (last, full) = (Some(checked), false);
        }
    }

    /// One object, whole as far as its bytes came; `None` = there is nothing new.
    async fn read_object(
        &self,
        last: Option<&Checked>,
        full: bool,
        within: Duration,
    ) -> Result<(Begun, Option<Vec<u8>>), BackupError> {
        let node = self.preferred();
        let address = self.address(node).to_owned();
        let after = last.map(|Checked { header, hash, .. }| After {
            number: header.number,
            last: header.last,
            oldest: header.oldest,
            hash: hash.to_vec(),
            lineage: header.lineage.to_string(),
        });
        let late = |_| ClientError::Deadline { waited: within, last: None, may_apply: false };
        let failed = |status: tonic::Status| status_error(&address, &status);
        let missing = |field| ClientError::convert(&address, &ConvertError::Missing { field });
        let mut service = BackupClient::new(self.channel(node, 0)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let asked = timeout(within, service.read_backup(ReadBackupRequest { after, full })).await;
        let mut stream = asked.map_err(late)?.map_err(failed)?.into_inner();
        let (mut begun, mut object): (Option<Begun>, Vec<u8>) = (None, Vec::new());
        while let Some(ReadBackupResponse { item }) =
            timeout(within, stream.message()).await.map_err(late)?.map_err(failed)?
        {
            match item.ok_or_else(|| missing("item"))? {
                Item::Begun(told) => begun = Some(told),
                Item::Part(part) if object.len() + part.len() > OBJECT_BYTES_MAX => {
                    return Err(BackupError::TooLarge { address: address.clone() });
                }
                Item::Part(part) => object.extend_from_slice(&part),
            }
        }
        let begun = begun.ok_or_else(|| missing("begun"))?;
        let object = (!begun.nothing_new).then_some(object);
        Ok((begun, object))
    }
}

/// The last object there is, read to its last byte.
async fn newest(place: &Place) -> Result<Option<Checked>, BackupError> {
    let Some(number) = place.list().await?.last().copied() else { return Ok(None) };
    read(place, number).await.map(Some)
}

async fn read(place: &Place, number: u32) -> Result<Checked, BackupError> {
    let checked = place.check(number).await?;
    if checked.header.number == number {
        return Ok(checked);
    }
    let source = ObjectError::Damaged("it has the number of another one");
    Err(BackupError::Object { number, place: place.to_string(), source })
}

/// Reads every object of a backup, in order, checks its trailer and that it follows the one before; `found` is told of each.
///
/// # Errors
/// The first that is wrong, missing, or can't be read.
pub async fn verify(place: &Place, mut found: impl FnMut(&Checked)) -> Result<(), BackupError> {
    let mut last: Option<Checked> = None;
    for number in place.list().await? {
        let checked = read(place, number).await?;
        let follows = last.as_ref().map_or_else(|| may_begin(&checked.header), |last| last.precedes(&checked.header));
        follows.map_err(|source| BackupError::Object { number, place: place.to_string(), source })?;
        found(&checked);
        last = Some(checked);
    }
    last.map(drop).ok_or_else(|| BackupError::Empty(place.to_string()))
}
