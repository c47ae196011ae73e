//! Several commands as one: what one of them halts, halts all, and the machine undoes them together.

use super::{Cause, Decided, decide, invalid};
use crate::command::Body;
use crate::id::RecordId;
use crate::limits::{self, check};
use crate::scratch::Scratch;
use crate::view::View;

pub(super) fn group<V: View>(
    scratch: &mut Scratch<'_, V>,
    cause: Cause<'_>,
    bodies: &[Body],
) -> Decided<Vec<RecordId>, V> {
    check("commands of a group", bodies.len(), limits::GROUP_COMMANDS_MAX)?;
    let mut created = Vec::new();
    for body in bodies {
        let is_alone = matches!(
            body,
            Body::Group { .. }
                | Body::Expecting { .. }
                | Body::Rollback { .. }
                | Body::OpenSession
                | Body::CloseSession
        );
        if is_alone {
            let why = "a group holds no group, no rollback, no expected versions of a part, and nothing about sessions";
            return Err(invalid(why).into());
        }
        created.extend(decide(scratch, cause, body)?);
    }
    Ok(created)
}
