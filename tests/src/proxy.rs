//! A network between the worker and Postgres, that can fail as networks and poolers do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::limit::within;

/// What befalls what is on its way.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Nothing is forwarded, and nothing closed.
    silent: bool,
    /// The server's notifications are not forwarded.
    deaf: bool,
    /// The answer to the next COMMIT ends its connection instead.
    cuts: bool,
}

/// A proxy of one Postgres server, without TLS; its connections end with its drop.
pub struct Proxy {
    address: SocketAddr,
    server: watch::Sender<SocketAddr>,
    connections: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
    weather: Arc<watch::Sender<Weather>>,
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
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let (server, leads_to) = watch::channel(server);
        let (alive, ends) = watch::channel(());
        let accepting = tokio::spawn({
            let (connections, weather) = (Arc::clone(&connections), Arc::clone(&weather));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (forsake, forsaken) = oneshot::channel();
                    connections.lock().expect("no panic while locked").push(forsake);
                    let server = *leads_to.borrow();
                    tokio::spawn(connect(client, server, forsaken, ends.clone(), Arc::clone(&weather)));
                }
            }
        });
        Ok(Self { address, server, connections, weather, _alive: alive, accepting })
    }

    /// Where it takes connections.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections are to another server.
    pub fn lead_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Every connection that there is breaks, and the server does not hear of it: as when a cable is cut
    /// and the client's side notices first. New ones are served.
    pub fn forsake(&self) {
        for connection in self.connections.lock().expect("no panic while locked").drain(..) {
            // One that has ended by itself waits for nothing.
            let _ = connection.send(());
        }
    }

    /// Forwards nothing any more, in either direction, and closes nothing; or goes on with it.
    pub fn silence(&self, silent: bool) {
        self.weather.send_modify(|weather| weather.silent = silent);
    }

    /// Swallows the server's notifications, as poolers do.
    pub fn deafen(&self) {
        self.weather.send_modify(|weather| weather.deaf = true);
    }

    /// The next COMMIT's answer does not arrive: its connection ends instead.
    pub fn cut_at_commit(&self) {
        self.weather.send_modify(|weather| weather.cuts = true);
    }

    /// Waits until that has happened.
    ///
    /// # Panics
    /// When it does not.
    pub async fn has_cut(&self) {
        let mut weather = self.weather.subscribe();
        let cut = weather.wait_for(|weather| !weather.cuts);
        within("an answer to COMMIT", cut).await.expect("we hold the sender");
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
    weather: Arc<watch::Sender<Weather>>,
) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let is_forsaken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // Whatever way one direction ends, the connection does.
        tokio::select! {
            _ = ask(from_client, to_server, &weather) => false,
            _ = answer(from_server, to_client, &weather) => false,
            told = forsaken => told.is_ok(),
            _ = ends.changed() => false,
        }
    };
    drop(client);
    if is_forsaken {
        // Held open, and nothing more is said.
        let _ = ends.changed().await;
    }
}

/// What the client says, its end included.
async fn ask(
    mut client: ReadHalf<'_>,
    mut server: WriteHalf<'_>,
    weather: &watch::Sender<Weather>,
) -> anyhow::Result<()> {
    let mut weather = weather.subscribe();
    let mut bytes = vec![0; 16_384];
    loop {
        let read = client.read(&mut bytes).await;
        weather.wait_for(|weather| !weather.silent).await?;
        match read? {
            0 => return Ok(()),
            length => server.write_all(&bytes[..length]).await?,
        }
    }
}

/// What the server says, message by message.
async fn answer(
    mut server: ReadHalf<'_>,
    mut client: WriteHalf<'_>,
    weather: &watch::Sender<Weather>,
) -> anyhow::Result<()> {
    let mut now = weather.subscribe();
    let mut begun = false;
    loop {
        let kind = server.read_u8().await?;
        let mut message = vec![kind];
        // The first byte of all may be the answer to whether it speaks TLS, which is no message.
        if begun || kind != b'N' {
            begun = true;
            let length = server.read_u32().await?;
            message.extend(length.to_be_bytes());
            let body = usize::try_from(length)?.checked_sub(4).context("a length includes itself")?;
            message.resize(5 + body, 0);
            server.read_exact(&mut message[5..]).await?;
        }
        let is_notification = begun && kind == b'A';
        let is_commit = begun && kind == b'C' && &message[5..] == b"COMMIT\0";
        let sky = *now.wait_for(|weather| !weather.silent).await?;
        if is_commit && sky.cuts {
            weather.send_modify(|weather| weather.cuts = false);
            return Ok(());
        }
        if !(is_notification && sky.deaf) {
            client.write_all(&message).await?;
        }
    }
}
