//! A network of a test's own: a namespace with the addresses it is given, a resolver configuration,
//! and a capture of every packet that leaves.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout};

use crate::limit::within;
use crate::process;

/// Set within the namespace.
const WITHIN: &str = "KLAXON_TEST_NETWORK";
const CAPTURE: &str = include_str!("capture.py");
/// Where a packet is sent to see that all before it were captured: discard, of RFC 863.
const DISCARD: u16 = 9;

#[derive(Deserialize)]
struct Packet {
    to: Option<IpAddr>,
    port: u16,
}

/// The network; it ends with the test.
pub struct Network {
    packets: Lines<BufReader<ChildStdout>>,
    accepted: Arc<Mutex<Vec<SocketAddr>>>,
    _capture: Child,
    _folder: tempfile::TempDir,
}

impl Network {
    /// Called first in a test of this name: runs the test once more, in namespaces of its own, with
    /// these variables in its environment, and fails as it does. There, this returns the network;
    /// here, nothing is left to be done.
    ///
    /// Where namespaces may not be made, it says so on the terminal, and nothing is tested; unless
    /// `KLAXON_MUST_TEST` is set, as the gate sets it for root.
    ///
    /// # Panics
    /// When the test fails in there, or must be run and cannot.
    pub async fn enter(
        test: &str,
        environment: &[(&str, &str)],
        addresses: &[IpAddr],
        resolver: &str,
    ) -> Option<Self> {
        if std::env::var_os(WITHIN).is_some() {
            return Some(Self::set_up(addresses, resolver).await.expect("the network can be set up"));
        }
        if let Err(error) = process::run(namespaces().arg("true")) {
            let must = std::env::var_os("KLAXON_MUST_TEST").is_some();
            assert!(!must, "KLAXON_MUST_TEST is set, and {test} needs a network namespace: {error:#}");
            // Past the capture of the test's output: who reads it is to know.
            let _ = writeln!(std::io::stderr(), "NOT TESTED: {test} needs a network namespace: {error:#}");
            return None;
        }
        let program = std::env::current_exe().expect("this program has a path");
        let mut again = namespaces();
        again.arg(program).args(["--exact", test, "--nocapture"]).env(WITHIN, "1");
        again.envs(environment.iter().copied());
        process::run(&mut again).unwrap_or_else(|error| panic!("{error:#}"));
        None
    }

    async fn set_up(addresses: &[IpAddr], resolver: &str) -> anyhow::Result<Self> {
        process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        for address in addresses {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let mut add = Command::new("ip");
            add.args(["addr", "replace", &format!("{address}/{length}"), "dev", "lo"]);
            if address.is_ipv6() {
                add.arg("nodad");
            }
            process::run(&mut add)?;
        }
        let folder = tempfile::tempdir()?;
        let configuration = folder.path().join("resolv.conf");
        std::fs::write(&configuration, resolver)?;
        process::run(Command::new("mount").arg("--bind").arg(&configuration).arg("/etc/resolv.conf"))?;
        let mut capture = tokio::process::Command::new("/usr/bin/python3")
            .args(["-c", CAPTURE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start /usr/bin/python3")?;
        let packets = BufReader::new(capture.stdout.take().context("stdout is piped")?).lines();
        let accepted = Arc::default();
        let mut network = Self { packets, accepted, _capture: capture, _folder: folder };
        let Packet { to: None, .. } = network.next().await else { bail!("the capture begins in the middle") };
        Ok(network)
    }

    /// Listens on ports of addresses, only to note that somebody connected.
    ///
    /// # Errors
    /// A port is not to be had.
    pub async fn listen(&self, addresses: &[IpAddr], ports: &[u16]) -> anyhow::Result<()> {
        for address in addresses {
            for port in ports {
                let at = SocketAddr::new(*address, *port);
                let listener = TcpListener::bind(at).await.with_context(|| at.to_string())?;
                let accepted = Arc::clone(&self.accepted);
                tokio::spawn(async move {
                    // Whoever connects is left to wait.
                    let mut connections = Vec::new();
                    while let Ok((stream, _)) = listener.accept().await {
                        connections.push(stream);
                        accepted.lock().unwrap_or_else(PoisonError::into_inner).push(at);
                    }
                });
            }
        }
        Ok(())
    }

    /// Where those listened that somebody connected to.
    #[must_use]
    pub fn accepted(&self) -> Vec<SocketAddr> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where packets went that left since this was last called.
    ///
    /// # Panics
    /// When the capture has ended, or `witness`, to which a packet is sent, is none of the addresses.
    pub async fn packets(&mut self, witness: IpAddr) -> Vec<SocketAddr> {
        let last = SocketAddr::new(witness, DISCARD);
        UdpSocket::bind((witness, 0)).and_then(|socket| socket.send_to(b"", last)).expect("it is ours");
        let mut packets = Vec::new();
        loop {
            let packet = self.next().await;
            let to = SocketAddr::new(packet.to.expect("only the first has no address"), packet.port);
            if to == last {
                return packets;
            }
            packets.push(to);
        }
    }

    async fn next(&mut self) -> Packet {
        let line = within("a captured packet", self.packets.next_line()).await.expect("stdout reads");
        serde_json::from_str(&line.expect("the capture lives")).expect("it writes JSON")
    }
}

/// A command in namespaces of its own, which ends with the thread that started it.
fn namespaces() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--"]);
    command
}
