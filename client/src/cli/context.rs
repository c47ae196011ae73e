//! What the global arguments mean: a client, how to read, in whose name.

use super::args::Global;
use super::expect::stale;
use super::report::{Failure, accepted};
use crate::client::Client;
use crate::code::Code;
use crate::moment::Moment;
use crate::profile::{Profile, ProfileError};
use crate::read::Read;
use crate::session::Session;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;
use zyflow_machine::command::Body;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::Outcome;

/// How long the closing of a session may hold up the end of a command.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// What the global arguments mean.
#[derive(Debug)]
pub struct Context {
    pub(super) global: Global,
    /// The revision that `--at` means; see [`Context::pin`].
    pub(super) at: Option<Revision>,
}

impl Context {
    /// Of these arguments. Reads nothing yet.
    #[must_use]
    pub fn new(global: Global) -> Self {
        let at = match &global.at {
            Some(Moment::Revision(revision)) => Some(*revision),
            Some(Moment::Time(_) | Moment::Point(_)) | None => None,
        };
        Self { global, at }
    }

    /// Asks the cluster which revision `--at` means, where it is a time or a rollback point: all reads of a command see that one.
    pub(super) async fn pin(&mut self) -> Result<(), Failure> {
        if let (None, Some(moment)) = (self.at, self.global.at.clone()) {
            self.at = Some(self.client()?.pin(self.read(), moment).await?);
        }
        Ok(())
    }

    /// The same for another cluster, or as somebody else.
    pub(super) fn elsewhere(&self, profile: PathBuf, within: Duration) -> Self {
        let global = Global { profile: Some(profile), node: None, at: None, timeout: within, ..self.global.clone() };
        Self::new(global)
    }

    pub(super) fn within(&self) -> Duration {
        self.global.timeout
    }

    pub(super) fn read(&self) -> Read {
        Read { consistency: self.global.consistency, at: self.at, within: self.within() }
    }

    /// How the current state is read before it is changed: the newest, whatever `--at` says.
    pub(super) fn read_now(&self) -> Read {
        Read { at: None, ..self.read() }
    }

    pub(super) fn profile(&self) -> Result<Profile, Failure> {
        let usual = Profile::default_path();
        let path = self.global.profile.as_ref().unwrap_or(&usual);
        if self.global.profile.is_none() && !path.exists() {
            return Err(crate::ClientError::from(ProfileError::None(usual)).into());
        }
        Profile::load(path).map_err(|error| crate::ClientError::from(error).into())
    }

    /// A client that asks the node of `--node` first.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let client = Client::new(&self.profile()?)?;
        client.prefer(self.node()?.unwrap_or(0))?;
        Ok(client)
    }

    /// The endpoint of `--node`, counted from 0.
    pub(super) fn node(&self) -> Result<Option<usize>, Failure> {
        match self.global.node {
            Some(0) => Err(Failure::new(Code::Usage, "--node counts from 1: the first endpoint of the profile is 1")),
            number => Ok(number.map(|number| number - 1)),
        }
    }

    pub(super) fn author(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.global.author.clone().or_else(user).unwrap_or_else(|| "zyflow".to_owned())
    }

    /// Proposes one command in a session of its own; a failure names `what`.
    pub(super) async fn propose(
        &self,
        client: &Client,
        body: Body,
        what: &str,
    ) -> Result<(Revision, Vec<RecordId>), Failure> {
        let session = Session::new(client.clone(), self.author(), 0);
        let outcome = session.propose(body, self.within()).await?;
        // The command is decided. A session that can't be closed in time expires by itself.
        let _ = session.close(CLOSE_DEADLINE.min(self.within())).await;
        match outcome {
            Outcome::Stale { revision, fields } => Err(stale(self, client, revision, &fields, what).await),
            Outcome::Accepted { .. } | Outcome::Rejected(_) | Outcome::Duplicate(_) => accepted(outcome, what),
        }
    }

    /// Makes sure that a deletion is meant: by `--yes`, or by asking, where somebody can answer.
    pub(super) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.global.yes {
            return Ok(());
        }
        let refused = |reason: &str| Err(Failure::new(Code::Usage, format!("{question} {reason}")));
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return refused("Nothing was done: nobody can be asked here, so say --yes");
        }
        let failed = |error: std::io::Error| Failure::new(Code::File, format!("the terminal can't be asked: {error}"));
        write!(std::io::stderr(), "{question} [y/N] ").map_err(failed)?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(failed)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { refused("Nothing was done.") }
    }
}
