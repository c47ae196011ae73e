//! The Admin service: what this node knows, membership, and the checkouts of this machine.

mod rights;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle as Runtime;
use tonic::{Request, Response, Status};
use zyflow_api::ApiError;
use zyflow_api::v1::admin_server::Admin;
use zyflow_api::v1::{self, ErrorCode, NodeRole};
use zyflow_checkout::{CheckoutStatus, FileState, Handle, Take};
use zyflow_crypto::Lineage;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_raft::{Consensus, Consistency, Role};
use zyflow_storage::tables::{Tables, TablesError};

use crate::checkouts::{Binding, Checkouts, CheckoutsError, Policy, Wishes};
use crate::config::Config;
use crate::joining::Joining;
use crate::services::join::{ids_used, joining_error};
use crate::services::members::{Members, deadline};
use crate::services::{read_error, tables_error};
use rights::{of_admin, of_admin_or_new_node};

/// The largest id that a record can have: 63 bits.
const RECORD_ID_MAX: u64 = u64::MAX >> 1;

/// How long a join token is good where nobody says.
const JOIN_TTL_DEFAULT: Duration = Duration::from_hours(1);

/// What doesn't change while the node runs.
pub struct About {
    /// Its configuration.
    pub config: Config,
    /// The cluster's history.
    pub lineage: Lineage,
    /// When it started.
    pub started: Instant,
    /// Where blocking work may wait.
    pub runtime: Runtime,
    /// The tokens of nodes that join, where this node has the CA's key.
    pub joining: Option<Arc<Joining>>,
}

/// The service.
pub struct AdminService {
    about: About,
    consensus: Consensus,
    members: Members,
    tables: Tables,
    checkouts: Arc<Checkouts>,
}

impl AdminService {
    /// Answers for this node.
    #[must_use]
    pub fn new(about: About, consensus: Consensus, tables: Tables, checkouts: Arc<Checkouts>) -> Self {
        let members = Members::new(&about.config, consensus.clone());
        Self { about, consensus, members, tables, checkouts }
    }

    fn checkout_error(error: &CheckoutsError) -> Status {
        let code = match error {
            CheckoutsError::NotAFolder { .. } => ErrorCode::Invalid,
            CheckoutsError::Bound { .. } => ErrorCode::Exists,
            CheckoutsError::NoProject(_) | CheckoutsError::NotBound(_) => ErrorCode::NotFound,
            CheckoutsError::TooMany
            | CheckoutsError::List { .. }
            | CheckoutsError::Damaged { .. }
            | CheckoutsError::Engine { .. } => ErrorCode::Precondition,
        };
        ApiError::new(code, error.to_string()).into()
    }

    /// The digest of what SQLite holds against the one kept for the same revision.
    async fn recompute(&self) -> Result<v1::StoredDigest, Status> {
        let tables = self.tables.clone();
        let compared = self.blocking(move || {
            tables.flush()?;
            let (at, computed) = tables.recompute_digest()?;
            Ok(tables.digest_at(at)?.map(|kept| (at, computed, computed == kept)))
        });
        let Some((revision, digest, matches)) = compared.await? else {
            let busy = "the state changed faster than it could be read: verify again when there is less to do";
            return Err(ApiError::new(ErrorCode::Precondition, busy).into());
        };
        Ok(v1::StoredDigest { revision: revision.0, digest: digest.to_bytes().to_vec(), matches })
    }

    /// Waits until this node has applied a revision. One that is out of service gets no further, and still says what it has: this is how
    /// people look at it.
    async fn reach(&self, wanted: Revision) -> Result<(), ApiError> {
        if *self.tables.applied().borrow() >= wanted {
            return Ok(());
        }
        let barrier = self.consensus.read_barrier(Consistency::AtLeast(wanted), deadline(None)).await;
        barrier.map_err(|error| read_error(&error))?;
        Ok(())
    }

    /// Work on the tables that reads much.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, TablesError> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.about.runtime.spawn_blocking(work).await;
        let done = done.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?;
        Ok(done.map_err(|error| tables_error(&error))?)
    }

    /// A token for the first id that no member has or had, as far as everything that was acknowledged goes.
    async fn join_token(&self, request: v1::CreateJoinTokenRequest) -> Result<v1::CreateJoinTokenResponse, ApiError> {
        let role = match request.role() {
            v1::JoinRole::Learner => zyflow_crypto::Role::Learner,
            v1::JoinRole::Voter => zyflow_crypto::Role::Voter,
            v1::JoinRole::Unspecified => {
                return Err(ApiError::new(ErrorCode::Invalid, "a token is for a learner or a voter: say which"));
            }
        };
        let Some(joining) = self.about.joining.clone() else {
            let message = format!(
                "node {} has no CA key to let nodes in with: ask the node that has the section [join] in its configuration",
                self.about.config.node.id
            );
            return Err(ApiError::new(ErrorCode::Precondition, message));
        };
        let ids = ids_used(&self.consensus, deadline(None)).await?;
        let ttl = request.ttl_ms.map_or(JOIN_TTL_DEFAULT, Duration::from_millis);
        let made = self.about.runtime.spawn_blocking(move || joining.make(role, &ids, ttl)).await;
        let made = made.map_err(|error| ApiError::new(ErrorCode::NodeFailed, error.to_string()))?;
        let (token, expires_ms) = made.map_err(|error| joining_error(&error))?;
        Ok(v1::CreateJoinTokenResponse { token: token.to_string(), node_id: token.node_id, expires_ms })
    }

    async fn handle(&self, path: &str) -> Result<Handle, Status> {
        self.checkouts.handle(Path::new(path)).await.map_err(|error| Self::checkout_error(&error))
    }
}

fn role(role: Role) -> NodeRole {
    match role {
        Role::Leader => NodeRole::Leader,
        Role::Follower => NodeRole::Follower,
        Role::Candidate => NodeRole::Candidate,
        Role::Learner => NodeRole::Learner,
        Role::Stopped => NodeRole::Stopped,
    }
}

fn size(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn checkout(binding: &Binding, status: &CheckoutStatus) -> v1::Checkout {
    let count = |is: fn(&FileState) -> bool| {
        u32::try_from(status.files.iter().filter(|file| is(&file.state)).count()).unwrap_or(u32::MAX)
    };
    v1::Checkout {
        path: binding.root.display().to_string(),
        project: binding.project.clone(),
        policy: match binding.policy {
            Policy::Off => v1::WritePolicy::Off,
            Policy::Clean => v1::WritePolicy::Clean,
            Policy::Always => v1::WritePolicy::Always,
        }
        .into(),
        convention: binding.convention.as_ref().map(ToString::to_string),
        paused: status
            .paused
            .clone()
            .or_else(|| (!status.is_ready).then(|| "it is being looked at for the first time".to_owned())),
        synced: count(|state| matches!(state, FileState::Synced)),
        unsynced: count(|state| !matches!(state, FileState::Synced | FileState::Parked(_))),
        parked: count(|state| matches!(state, FileState::Parked(_))),
        conflicts: count(|state| matches!(state, FileState::NeedsTake)),
        offline: status.offline.as_ref().map(|offline| offline.reason.clone()),
        dirtied: status.dirtied.clone(),
        notes: status.notes.clone(),
    }
}

fn file(file: &zyflow_checkout::FileStatus) -> v1::CheckoutFile {
    let state = match &file.state {
        FileState::Synced => v1::FileState::Synced,
        FileState::Unknown | FileState::Syncing | FileState::Unsynced(_) | FileState::DeletionPending => {
            v1::FileState::Unsynced
        }
        FileState::Parked(_) => v1::FileState::Parked,
        FileState::NeedsTake => v1::FileState::Conflict,
        FileState::DeletionHeld => v1::FileState::Paused,
    };
    let advice = match &file.state {
        FileState::NeedsTake => "; remove the checkout and add it again with --take",
        FileState::DeletionHeld => " with `zyflow checkout rescan --confirm-deletions`",
        FileState::Synced
        | FileState::Unknown
        | FileState::Syncing
        | FileState::Unsynced(_)
        | FileState::Parked(_)
        | FileState::DeletionPending => "",
    };
    let is_synced = file.state == FileState::Synced;
    v1::CheckoutFile {
        path: file.path.clone(),
        state: state.into(),
        reason: if is_synced { String::new() } else { format!("{}{advice}", file.state) },
        revision: file.revision.map_or(0, |revision| revision.0),
        unsynced_since_ms: file.unsynced_since.filter(|_| !is_synced).map(millis),
    }
}

/// Milliseconds since 1970; a clock before that is at its start.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn node_status(&self, _: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusResponse>, Status> {
        let status = self.consensus.status();
        let config = &self.about.config;
        Ok(Response::new(v1::NodeStatusResponse {
            node_id: status.node_id,
            cluster: config.node.cluster.clone(),
            lineage: self.about.lineage.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role(status.role).into(),
            leader: self.members.leader(),
            term: status.term,
            last_log_index: status.last_log_index,
            committed: status.committed,
            applied: status.applied,
            durable: status.durable,
            flushed: self.tables.flushed().borrow().0,
            backlog_ops: size(self.tables.backlog_ops()),
            millis_since_quorum_ack: status.millis_since_quorum_ack,
            fatal: status.fatal,
            members: self.members.all(),
            api_address: config.api.advertise.clone(),
            data: config.node.data.display().to_string(),
            uptime_ms: u64::try_from(self.about.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        let status = self.consensus.status();
        let members = self.members.all().into_iter().map(|member| v1::MemberStatus {
            leader: status.leader == Some(member.node_id),
            matched: status.matched.get(&member.node_id).copied(),
            member: Some(member),
        });
        Ok(Response::new(v1::ClusterStatusResponse {
            cluster: self.about.config.node.cluster.clone(),
            lineage: self.about.lineage.to_string(),
            term: status.term,
            leader: self.members.leader(),
            members: members.collect(),
            committed: status.committed,
            removed: status.removed.into_iter().collect(),
            changing: status.is_changing,
        }))
    }

    async fn initialize(
        &self,
        request: Request<v1::InitializeRequest>,
    ) -> Result<Response<v1::InitializeResponse>, Status> {
        self.members.initialize(of_admin(request, "make a cluster")?).await?;
        Ok(Response::new(v1::InitializeResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.members.transfer(of_admin(request, "hand leadership over")?).await?;
        Ok(Response::new(v1::TransferLeaderResponse {}))
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::AddLearnerResponse>, Status> {
        let revision = self.members.add(of_admin_or_new_node(request)?).await?;
        Ok(Response::new(v1::AddLearnerResponse { revision }))
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        let revision = self.members.promote(of_admin(request, "give a vote")?).await?;
        Ok(Response::new(v1::PromoteMemberResponse { revision }))
    }

    async fn demote_member(
        &self,
        request: Request<v1::DemoteMemberRequest>,
    ) -> Result<Response<v1::DemoteMemberResponse>, Status> {
        let revision = self.members.demote(of_admin(request, "take a vote")?).await?;
        Ok(Response::new(v1::DemoteMemberResponse { revision }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let revision = self.members.remove(of_admin(request, "take a member out")?).await?;
        Ok(Response::new(v1::RemoveMemberResponse { revision }))
    }

    async fn move_member(
        &self,
        request: Request<v1::MoveMemberRequest>,
    ) -> Result<Response<v1::MoveMemberResponse>, Status> {
        let revision = self.members.relocate(of_admin(request, "say where a member is")?).await?;
        Ok(Response::new(v1::MoveMemberResponse { revision }))
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let revision = self.members.change(of_admin(request, "say who votes")?).await?;
        Ok(Response::new(v1::ChangeMembershipResponse { revision }))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let made = self.join_token(of_admin(request, "make a join token, which carries the data key")?).await?;
        tracing::info!(node = made.node_id, "a join token was made");
        Ok(Response::new(made))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        let request = request.into_inner();
        if let Some(revision) = request.revision {
            self.reach(Revision(revision)).await?;
        }
        let stored = if request.recompute { Some(self.recompute().await?) } else { None };
        let kept = || match request.revision.map(Revision) {
            None => self.tables.digest(),
            Some(asked) => match self.tables.digest_at(asked)? {
                Some(digest) => Ok((asked, digest)),
                None => self.tables.digest(),
            },
        };
        let (revision, digest) = kept().map_err(|error| tables_error(&error))?;
        Ok(Response::new(v1::VerifyResponse {
            node_id: self.about.config.node.id,
            revision: revision.0,
            digest: digest.to_bytes().to_vec(),
            stored,
        }))
    }

    async fn verify_range(
        &self,
        request: Request<v1::VerifyRangeRequest>,
    ) -> Result<Response<v1::VerifyRangeResponse>, Status> {
        let v1::VerifyRangeRequest { revision, first, last, parts } = request.into_inner();
        if first > last || last > RECORD_ID_MAX {
            let message = format!("{first} to {last} is no range of records: write ids from 0 to {RECORD_ID_MAX}");
            return Err(ApiError::new(ErrorCode::Invalid, message).into());
        }
        let tables = self.tables.clone();
        let range = (RecordId::from_u64(first), RecordId::from_u64(last));
        let digests = self.blocking(move || tables.range_digests(Revision(revision), range, parts.into())).await?;
        let parts = digests.iter().map(|part| v1::RangeDigest {
            first: part.first.to_u64(),
            last: part.last.to_u64(),
            rows: part.rows,
            unreadable: part.unreadable,
            digest: part.digest.to_bytes().to_vec(),
        });
        Ok(Response::new(v1::VerifyRangeResponse { node_id: self.about.config.node.id, parts: parts.collect() }))
    }

    async fn checkout_add(
        &self,
        request: Request<v1::CheckoutAddRequest>,
    ) -> Result<Response<v1::CheckoutAddResponse>, Status> {
        let request = request.into_inner();
        let take = match request.take() {
            v1::Take::Unspecified => None,
            v1::Take::Cluster => Some(Take::Cluster),
            v1::Take::Local => Some(Take::Local),
            v1::Take::Merge => Some(Take::Merge),
        };
        let policy = match request.policy() {
            v1::WritePolicy::Unspecified | v1::WritePolicy::Clean => Policy::Clean,
            v1::WritePolicy::Off => Policy::Off,
            v1::WritePolicy::Always => Policy::Always,
        };
        let convention = request.convention.as_deref().map(str::parse).transpose();
        let convention = convention.map_err(|error: zyflow_spec::ConventionError| {
            ApiError::new(ErrorCode::Invalid, format!("the dialect can't be used: {error}"))
        })?;
        // What the caller just made must be known here: its project above all.
        let barrier = self.consensus.read_barrier(Consistency::Linearizable, deadline(None)).await;
        barrier.map_err(|error| read_error(&error))?;
        let path = Path::new(&request.path);
        let added = self.checkouts.add(path, &request.project, Wishes { policy, take, convention }).await;
        added.map_err(|error| Self::checkout_error(&error))?;
        let all = self.checkouts.all().await;
        let root = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let added = all.iter().find(|(binding, _)| binding.root == root);
        let checkout = added.map(|(binding, handle)| checkout(binding, &handle.status()));
        Ok(Response::new(v1::CheckoutAddResponse { checkout }))
    }

    async fn checkout_list(
        &self,
        _: Request<v1::CheckoutListRequest>,
    ) -> Result<Response<v1::CheckoutListResponse>, Status> {
        let all = self.checkouts.all().await;
        let checkouts = all.iter().map(|(binding, handle)| checkout(binding, &handle.status())).collect();
        Ok(Response::new(v1::CheckoutListResponse { checkouts }))
    }

    async fn checkout_status(
        &self,
        request: Request<v1::CheckoutStatusRequest>,
    ) -> Result<Response<v1::CheckoutStatusResponse>, Status> {
        let wanted = request.into_inner().path;
        if let Some(path) = &wanted {
            self.handle(path).await?;
        }
        let root = wanted.map(|path| std::fs::canonicalize(&path).unwrap_or_else(|_| path.into()));
        let all = self.checkouts.all().await;
        let items = all.iter().filter(|(binding, _)| root.as_ref().is_none_or(|root| binding.root == *root));
        let items = items.map(|(binding, handle)| {
            let status = handle.status();
            let files = status.files.iter().map(file).collect();
            v1::checkout_status_response::Item { checkout: Some(checkout(binding, &status)), files }
        });
        Ok(Response::new(v1::CheckoutStatusResponse { checkouts: items.collect() }))
    }

    async fn checkout_pause(
        &self,
        request: Request<v1::CheckoutPauseRequest>,
    ) -> Result<Response<v1::CheckoutPauseResponse>, Status> {
        self.handle(&request.into_inner().path).await?.pause();
        Ok(Response::new(v1::CheckoutPauseResponse {}))
    }

    async fn checkout_resume(
        &self,
        request: Request<v1::CheckoutResumeRequest>,
    ) -> Result<Response<v1::CheckoutResumeResponse>, Status> {
        self.handle(&request.into_inner().path).await?.resume();
        Ok(Response::new(v1::CheckoutResumeResponse {}))
    }

    async fn checkout_rescan(
        &self,
        request: Request<v1::CheckoutRescanRequest>,
    ) -> Result<Response<v1::CheckoutRescanResponse>, Status> {
        let request = request.into_inner();
        let handle = self.handle(&request.path).await?;
        if request.confirm_deletions {
            handle.confirm_deletions();
        }
        handle.rescan();
        Ok(Response::new(v1::CheckoutRescanResponse {}))
    }

    async fn checkout_remove(
        &self,
        request: Request<v1::CheckoutRemoveRequest>,
    ) -> Result<Response<v1::CheckoutRemoveResponse>, Status> {
        let removed = self.checkouts.remove(Path::new(&request.into_inner().path)).await;
        removed.map_err(|error| Self::checkout_error(&error))?;
        Ok(Response::new(v1::CheckoutRemoveResponse {}))
    }
}
