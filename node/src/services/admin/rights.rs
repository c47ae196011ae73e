//! Who may change the cluster: an administrator, and a node that adds itself.
//!
//! A certificate says what its holder is; the connection carries that along as [`Caller`]. Not here: whether a change can be made, which is
//! `zyflow_raft`'s to know, and rights to the contents.

use tonic::Request;
use zyflow_api::ApiError;
use zyflow_api::v1::{AddLearnerRequest, ErrorCode};
use zyflow_crypto::{Identity, Role};

use crate::stream::Caller;

/// What a call asks for, where an administrator makes it; `what` completes "only an administrator's certificate may".
pub(super) fn of_admin<T>(request: Request<T>, what: &str) -> Result<T, ApiError> {
    let caller = caller(&request);
    let admin = caller.filter(|caller| caller.role == Role::Admin).ok_or_else(|| refused(caller, what))?;
    tracing::info!(%admin, what, "an administrator's call");
    Ok(request.into_inner())
}

/// The same for adding a learner. A node may add itself as well: its certificate was issued for this id, and a vote is another call.
pub(super) fn of_admin_or_new_node(request: Request<AddLearnerRequest>) -> Result<AddLearnerRequest, ApiError> {
    let added = request.get_ref().member.as_ref().map(|member| member.node_id);
    let is_itself = |caller: &&Identity| caller.role.is_node() && Some(caller.node_id) == added;
    match caller(&request).filter(is_itself) {
        Some(node) => {
            tracing::info!(%node, "a node adds itself");
            Ok(request.into_inner())
        }
        None => of_admin(request, "add another node"),
    }
}

fn caller<T>(request: &Request<T>) -> Option<&Identity> {
    request.extensions().get::<Caller>().map(|caller| &caller.0)
}

fn refused(caller: Option<&Identity>, what: &str) -> ApiError {
    let caller = caller.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let message = format!("only an administrator's certificate may {what}, and this one is of {caller}");
    ApiError::new(ErrorCode::Denied, message)
}

#[cfg(test)]
mod tests {
    use zyflow_api::v1::Member;

    use super::*;

    fn from<T>(caller: Option<(Role, u64)>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((role, node_id)) = caller {
            request.extensions_mut().insert(Caller(Identity { cluster: "team".to_owned(), role, node_id }));
        }
        request
    }

    fn adding(caller: Option<(Role, u64)>, node_id: Option<u64>) -> Result<AddLearnerRequest, ApiError> {
        let member = node_id.map(|node_id| Member { node_id, ..Member::default() });
        of_admin_or_new_node(from(caller, AddLearnerRequest { member, timeout_ms: None }))
    }

    #[test]
    fn only_an_administrator_changes_the_cluster() {
        for role in Role::ALL {
            let asked = of_admin(from(Some((role, 4)), 7), "take a member out");
            match asked {
                Ok(message) => assert_eq!((role, message), (Role::Admin, 7)),
                Err(error) => {
                    assert_ne!(role, Role::Admin);
                    assert_eq!(error.code, ErrorCode::Denied, "{role}");
                }
            }
        }
        assert!(of_admin(from(None, 7), "take a member out").is_err(), "nobody known");
    }

    #[test]
    fn a_node_adds_itself_and_nobody_else() {
        for role in [Role::Learner, Role::Voter] {
            assert!(adding(Some((role, 4)), Some(4)).is_ok(), "{role}");
            assert!(adding(Some((role, 4)), Some(5)).is_err(), "{role}");
            assert!(adding(Some((role, 4)), None).is_err(), "{role}");
        }
        // The numbers of those that are no nodes are no node ids.
        for role in [Role::Agent, Role::Client] {
            assert!(adding(Some((role, 4)), Some(4)).is_err(), "{role}");
        }
        assert!(adding(Some((Role::Admin, 0)), Some(5)).is_ok());
        assert!(adding(None, None).is_err());
    }
}
