//! A network between the worker and Postgres, that can fail as networks do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// A proxy of one TCP server; its connections end with its drop.
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
    _alive: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// No port.
    pub async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::<Mutex<Vec<oneshot::Sender<()>>>>::default();
        let (alive, ends) = watch::channel(());
        let accepting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (forsake, forsaken) = oneshot::channel();
                    connections.lock().expect("no panic while locked").push(forsake);
                    tokio::spawn(connect(client, server, forsaken, ends.clone()));
                }
            }
        });
        Ok(Self { address, connections, _alive: alive, accepting })
    }

    /// Where it takes connections.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection that there is breaks, and the server does not hear of it: as when a cable is cut
    /// and the client's side notices first. New ones are served.
    pub fn forsake(&self) {
        for connection in self.connections.lock().expect("no panic while locked").drain(..) {
            // One that has ended by itself waits for nothing.
            let _ = connection.send(());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(
    mut client: TcpStream,
    server: SocketAddr,
    forsaken: oneshot::Receiver<()>,
    mut ends: watch::Receiver<()>,
) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let is_forsaken = tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => false,
        told = forsaken => told.is_ok(),
        _ = ends.changed() => false,
    };
    drop(client);
    if is_forsaken {
        // Held open, and nothing more is said.
        let _ = ends.changed().await;
    }
}
