//! A node beside those that a local cluster begins with: a process of its own, empty, with a certificate of the cluster.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, ensure};
use zyflow_client::Profile;

use crate::{Harness, binary, text};

/// A running process. Dropping it kills it.
pub struct Spare {
    /// Its node id.
    pub id: u64,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where clients reach it.
    pub api: String,
    /// What the process says.
    pub log: PathBuf,
    child: Child,
}

impl Spare {
    /// Starts a node with this id that belongs to nobody's membership yet. Its configuration is node 1's, with all that is node 1's own
    /// replaced.
    ///
    /// # Errors
    /// Where its certificate, its files or its process can't be made.
    pub fn start(harness: &Harness, id: u64) -> anyhow::Result<Self> {
        let layout = harness.cluster.layout();
        let script =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").context("cargo sets it")?).join("../deploy/certificates.sh");
        let certificates = layout.dir().join("certs");
        let made = Command::new("sh").arg(script).arg(certificates).args(["dev", "node", &id.to_string()]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let [peer, api, http] = free_addresses()?;
        let of_one = layout.ports(1).context("node 1")?;
        let config = text(&layout.config(1))
            .replace("id = 1\n", &format!("id = {id}\n"))
            .replace("node-1", &format!("node-{id}"))
            .replace(&format!("127.0.0.1:{}", of_one.peer), &peer)
            .replace(&format!("127.0.0.1:{}", of_one.api), &api)
            .replace(&format!("127.0.0.1:{}", of_one.http), &http);
        let path = layout.config(id);
        std::fs::write(&path, config)?;
        let log = layout.log(id);
        Self::run(id, (peer, api), &path, log)
    }

    /// Starts the node that a configuration describes, for the first time.
    ///
    /// # Errors
    /// Where its process can't be made.
    pub fn run(id: u64, (peer, api): (String, String), config: &Path, log: PathBuf) -> anyhow::Result<Self> {
        make(config)?;
        let child = run(config, &log)?;
        Ok(Self { id, peer, api, log, child })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would end the process.
    ///
    /// # Errors
    /// Where it has ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    /// Where it ends in another way.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(told.success(), "node {} can't be told to stop", self.id);
        let ended = self.child.wait()?;
        ensure!(ended.success(), "node {} ended badly: {ended}", self.id);
        Ok(())
    }

    /// Starts it again, on its data.
    ///
    /// # Errors
    /// Where the process can't be made.
    pub fn start_again(&mut self, harness: &Harness) -> anyhow::Result<()> {
        self.child = run(&harness.cluster.layout().config(self.id), &self.log)?;
        Ok(())
    }

    /// A profile that knows this node alone.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn profile(&self, harness: &Harness) -> anyhow::Result<PathBuf> {
        let mut profile = Profile::load(&harness.cluster.layout().profile())?;
        profile.endpoints = vec![self.api.clone()];
        let path = harness.folder().join(format!("client-{}.toml", self.id));
        std::fs::write(&path, toml::to_string(&profile)?)?;
        Ok(path)
    }
}

/// Addresses on this machine that nobody listens on.
///
/// # Errors
/// Where there are none left.
pub fn free_addresses<const N: usize>() -> anyhow::Result<[String; N]> {
    // All are held until the last is found, so that none is found twice.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut free = Vec::new();
    for listener in held {
        free.push(listener?.local_addr()?.to_string());
    }
    <[String; N]>::try_from(free).ok().context("as many as were asked for")
}

/// Makes the data folder of a node that has never run.
///
/// # Errors
/// Where there is one, or it can't be made.
pub fn make(config: &Path) -> anyhow::Result<()> {
    let made = Command::new(binary("zyflowd")?).args(["new", "--config"]).arg(config).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// What it says comes behind what it said before.
fn run(config: &Path, log: &Path) -> anyhow::Result<Child> {
    let said = File::options().create(true).append(true).open(log)?;
    let errors = said.try_clone()?;
    let mut command = Command::new(binary("zyflowd")?);
    Ok(command.args(["run", "--config"]).arg(config).stdout(said).stderr(errors).spawn()?)
}

impl Drop for Spare {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and is gone all the same.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
