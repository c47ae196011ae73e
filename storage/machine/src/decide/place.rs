//! Where a block goes: from an anchor to an order key between two neighbours.
//!
//! ```text
//!   siblings   A ........ D ....... B        D deleted: it keeps its place, others may stand by it
//!   After(A):  A  new ... D ....... B        right behind the anchor, before the next key of all, deleted ones included
//!   again:     A  new new2 . D .... B        behind what this command put there before: a command's order is kept
//! ```

use super::{Decided, invalid, known};
use crate::command::Anchor;
use crate::id::RecordId;
use crate::limits::{self, check};
use crate::order_key;
use crate::outcome::Reject;
use crate::record::{Kind, OrderKey};
use crate::scratch::Scratch;
use crate::view::View;
use std::collections::BTreeMap;

/// A key; `None` = before all.
type Position = Option<Vec<u8>>;

/// The places of one command's inserts and moves.
pub(super) struct Places {
    change: RecordId,
    /// The keys of this command's inserts, by their number.
    inserted: Vec<Vec<u8>>,
    /// By anchor: the last key that this command put behind it.
    tails: BTreeMap<Anchor, Tail>,
}

/// The end of the run that a command has put behind an anchor.
struct Tail {
    /// Where the anchor stood; once it has been moved, the run is not behind it any more.
    anchor: Position,
    last: Vec<u8>,
}

/// Where a block is to stand.
pub(super) enum Place {
    /// It stands there already.
    Already,
    /// At a new key.
    New(OrderKey),
}

impl Places {
    pub(super) fn new(change: RecordId) -> Self {
        Self { change, inserted: Vec::new(), tails: BTreeMap::new() }
    }

    /// The key of a new block.
    pub(super) fn insert<V: View>(&mut self, scratch: &Scratch<'_, V>, anchor: Anchor) -> Decided<OrderKey, V> {
        let (stands, low) = self.behind(scratch, anchor)?;
        let high = scratch.next(Kind::Block, self.change, low.as_deref())?;
        let key = between(low.as_deref(), high.as_ref())?;
        self.inserted.push(key.0.clone());
        self.tails.insert(anchor, Tail { anchor: stands, last: key.0.clone() });
        Ok(key)
    }

    /// The key of `block` once it is moved.
    pub(super) fn move_to<V: View>(
        &mut self,
        scratch: &Scratch<'_, V>,
        block: RecordId,
        anchor: Anchor,
    ) -> Decided<Place, V> {
        if anchor == Anchor::After(block) {
            return Err(invalid(format!("block {block} can't be placed after itself")).into());
        }
        let (stands, low) = self.behind(scratch, anchor)?;
        let (place, last) = match scratch.next(Kind::Block, self.change, low.as_deref())? {
            Some((order, next)) if next == block => (Place::Already, order),
            high => {
                let key = between(low.as_deref(), high.as_ref())?;
                let last = key.0.clone();
                (Place::New(key), last)
            }
        };
        self.tails.insert(anchor, Tail { anchor: stands, last });
        Ok(place)
    }

    /// Where an anchor stands, and the last key of the run behind it.
    fn behind<V: View>(&self, scratch: &Scratch<'_, V>, anchor: Anchor) -> Decided<(Position, Position), V> {
        let stands = self.resolve(scratch, anchor)?;
        let run = self.tails.get(&anchor).filter(|tail| tail.anchor == stands).map(|tail| tail.last.clone());
        let low = run.or_else(|| stands.clone());
        Ok((stands, low))
    }

    /// The key that an anchor stands at; `None` = before all.
    fn resolve<V: View>(&self, scratch: &Scratch<'_, V>, anchor: Anchor) -> Decided<Position, V> {
        match anchor {
            Anchor::Start => Ok(None),
            Anchor::After(id) => {
                let stored = known(scratch, Kind::Block, id)?;
                if stored.parent != self.change {
                    return Err(invalid(format!("block {id} is not in change {}", self.change)).into());
                }
                Ok(Some(stored.order.clone()))
            }
            Anchor::AfterNew(number) => {
                let key = usize::try_from(number).ok().and_then(|number| self.inserted.get(number));
                let key = key.ok_or_else(|| invalid(format!("the edit has no insert {number} before this one")))?;
                Ok(Some(key.clone()))
            }
        }
    }
}

fn between(low: Option<&[u8]>, high: Option<&(Vec<u8>, RecordId)>) -> Result<OrderKey, Reject> {
    let key = order_key::between(low, high.map(|(order, _)| order.as_slice()))
        .expect("invariant: blocks have keys minted here, and a view's next key is greater");
    check("bytes of an order key", key.0.len(), limits::ORDER_KEY_BYTES_MAX)?;
    Ok(key)
}
