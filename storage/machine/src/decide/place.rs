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
use crate::record::{Kind, OrderKey};
use crate::scratch::Scratch;
use crate::view::View;
use std::collections::BTreeMap;

/// The places of one command's inserts and moves.
pub(super) struct Places {
    change: RecordId,
    /// The keys of this command's inserts, by their number.
    inserted: Vec<Vec<u8>>,
    /// By the key of an anchor (`None` = the start): the last key that this command put there.
    tails: BTreeMap<Option<Vec<u8>>, Vec<u8>>,
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
        let anchor = self.resolve(scratch, anchor)?;
        let low = self.tails.get(&anchor).or(anchor.as_ref());
        let high = scratch.next(Kind::Block, self.change, low.map(Vec::as_slice))?.map(|(order, _)| order);
        let key = between(low, high.as_ref())?;
        self.inserted.push(key.0.clone());
        self.tails.insert(anchor, key.0.clone());
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
        let anchor = self.resolve(scratch, anchor)?;
        let low = self.tails.get(&anchor).or(anchor.as_ref());
        let place = match scratch.next(Kind::Block, self.change, low.map(Vec::as_slice))? {
            Some((order, next)) if next == block => {
                self.tails.insert(anchor, order);
                return Ok(Place::Already);
            }
            next => between(low, next.map(|(order, _)| order).as_ref())?,
        };
        self.tails.insert(anchor, place.0.clone());
        Ok(Place::New(place))
    }

    /// The key that an anchor stands at; `None` = before all.
    fn resolve<V: View>(&self, scratch: &Scratch<'_, V>, anchor: Anchor) -> Decided<Option<Vec<u8>>, V> {
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

fn between(low: Option<&Vec<u8>>, high: Option<&Vec<u8>>) -> Result<OrderKey, crate::outcome::Reject> {
    let key = order_key::between(low.map(Vec::as_slice), high.map(Vec::as_slice))
        .expect("invariant: blocks have keys minted here, and a view's next key is greater");
    check("bytes of an order key", key.0.len(), limits::ORDER_KEY_BYTES_MAX)?;
    Ok(key)
}
