//! A node beside those that a local cluster begins with: a process of its own, empty, with a certificate of the cluster.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, ensure};

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
        // All are held until the last is found, so that none is found twice.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let mut free = Vec::new();
        for listener in held {
            free.push(listener?.local_addr()?.to_string());
        }
        let [peer, api, http] = <[String; 3]>::try_from(free).ok().context("three ports")?;
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
        let said = File::create(&log)?;
        let errors = said.try_clone()?;
        let mut command = Command::new(binary("zyflowd")?);
        let child = command.args(["run", "--config"]).arg(path).stdout(said).stderr(errors).spawn()?;
        Ok(Self { id, peer, api, log, child })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and is gone all the same.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
