//! A `redis-server` of a test: on a free loopback port, without a disk, ended with the test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::PATIENCE;

/// See the module.
pub(super) struct Server {
    port: u16,
    child: Child,
}

impl Server {
    /// A server that takes connections.
    pub(super) fn start() -> Self {
        // Two tests may find the same port before either uses it: then the server of one doesn't start, and it looks for another.
        let begun = Instant::now();
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(port) {
                return Self { port, child };
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server finds no port");
        }
    }

    pub(super) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What is kept under a name; empty = nothing.
    pub(super) async fn get(&self, name: &str) -> Vec<u8> {
        redis::cmd("GETRANGE").arg(name).arg(0).arg(-1).query_async(&mut self.connection().await).await.unwrap()
    }

    pub(super) async fn set(&self, name: &str, value: &[u8]) {
        redis::cmd("SET").arg(name).arg(value).query_async::<()>(&mut self.connection().await).await.unwrap();
    }

    /// Something that is no value at all.
    pub(super) async fn make_list(&self, name: &str) {
        redis::cmd("LPUSH").arg(name).arg("one").query_async::<()>(&mut self.connection().await).await.unwrap();
    }

    /// Takes connections and answers nothing.
    pub(super) fn hang(&self) {
        self.signal("STOP");
    }

    pub(super) fn go_on(&self) {
        self.signal("CONT");
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another one on the same port, after [`Self::kill`].
    pub(super) fn restart(&mut self) {
        let begun = Instant::now();
        while spawn(self.port).map(|child| self.child = child).is_none() {
            assert!(begun.elapsed() < PATIENCE, "redis-server doesn't start again");
        }
    }

    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.address()).unwrap();
        let unhurried = redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&unhurried).await.unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `None` = it ended, as where somebody else has the port.
fn spawn(port: u16) -> Option<Child> {
    let port_text = port.to_string();
    let mut child = Command::new("redis-server")
        .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed by ./x setup");
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        assert!(begun.elapsed() < PATIENCE, "redis-server takes no connections");
        std::thread::yield_now();
    }
    None
}
