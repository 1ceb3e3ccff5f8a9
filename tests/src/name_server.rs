//! A name server that says what a test has it say: the truth, late, or something else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// What is said of a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// Its addresses, to be believed for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// That it is another name, which has these addresses.
    Alias(&'static str, Vec<IpAddr>),
    /// That there is no such name.
    NoSuchName,
    /// Its addresses, in an answer to a query that nobody made.
    OtherId(Vec<IpAddr>),
    /// Its addresses, after so long.
    Late(Duration, Vec<IpAddr>),
}

#[derive(Default)]
struct Records {
    says: HashMap<String, Says>,
    asked: Vec<String>,
}

/// The server; it ends with its drop.
pub struct NameServer {
    records: Arc<Mutex<Records>>,
    serving: JoinHandle<()>,
}

fn locked(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameServer {
    /// Starts one at port 53 of an address. What it is not told of has no such name.
    ///
    /// # Errors
    /// The port is not to be had.
    pub async fn start(address: IpAddr) -> anyhow::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((address, 53)).await?);
        let records = Arc::<Mutex<Records>>::default();
        let serving = tokio::spawn(serve(socket, Arc::clone(&records)));
        Ok(Self { records, serving })
    }

    /// Has it say something of a name from now on.
    pub fn say(&self, name: &str, says: Says) {
        locked(&self.records).says.insert(name.to_owned(), says);
    }

    /// The names it was asked for, in order, each as often as it was asked.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        locked(&self.records).asked.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: Arc<UdpSocket>, records: Arc<Mutex<Records>>) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query).await {
        let Some(question) = Question::of(&query[..length]) else { continue };
        let says = {
            let mut records = locked(&records);
            records.asked.push(question.name.clone());
            records.says.get(&question.name).cloned().unwrap_or(Says::NoSuchName)
        };
        match says {
            Says::Late(wait, addresses) => {
                let (socket, reply) = (Arc::clone(&socket), question.reply(&Says::Addresses(addresses, 60)));
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    send(&socket, &reply, from).await;
                });
            }
            says => send(&socket, &question.reply(&says), from).await,
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // Who no longer waits has closed the port.
    let _ = socket.send_to(reply, to).await;
}

/// The one question of a query (RFC 1035 section 4.1).
struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    written: Vec<u8>,
}

impl Question {
    fn of(query: &[u8]) -> Option<Self> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while *query.get(at)? != 0 {
            let label = query.get(at + 1..=at + usize::from(query[at]))?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += 1 + label.len();
        }
        let written = query.get(12..at + 5)?.to_vec();
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        Some(Self { id: [query[0], query[1]], name: labels.join("."), kind, written })
    }

    fn reply(&self, says: &Says) -> Vec<u8> {
        let mut records = Section::after(&self.written);
        let (mut id, mut code) = (self.id, 0);
        match says {
            Says::Addresses(addresses, ttl) => records.addresses(12, addresses, self.kind, *ttl),
            Says::Late(_, addresses) => records.addresses(12, addresses, self.kind, 60),
            Says::OtherId(addresses) => {
                id[0] ^= 0xff;
                records.addresses(12, addresses, self.kind, 60);
            }
            Says::Alias(name, addresses) => {
                let to = records.alias(name);
                records.addresses(to, addresses, self.kind, 60);
            }
            Says::NoSuchName => code = 3,
        }
        let authorities = u8::from(records.count == 0);
        if authorities == 1 {
            // How long it may be believed that there is nothing: not at all (RFC 2308 section 2).
            records.record(12, SOA, 0, &[&[0, 0][..], &[0; 20]].concat());
            records.count = 0;
        }
        let header = [id[0], id[1], 0x85, 0x80 | code, 0, 1, 0, records.count, 0, authorities, 0, 0];
        [&header[..], &self.written, &records.written].concat()
    }
}

/// Records after the question; where a name stands in the message is how it is named again.
struct Section {
    start: usize,
    written: Vec<u8>,
    count: u8,
}

impl Section {
    fn after(question: &[u8]) -> Self {
        Self { start: 12 + question.len(), written: Vec::new(), count: 0 }
    }

    fn addresses(&mut self, owner: usize, addresses: &[IpAddr], kind: u16, ttl: u32) {
        for address in addresses {
            match address {
                IpAddr::V4(v4) if kind == A => self.record(owner, A, ttl, &v4.octets()),
                IpAddr::V6(v6) if kind == AAAA => self.record(owner, AAAA, ttl, &v6.octets()),
                _ => {}
            }
        }
    }

    /// Returns where the other name stands.
    fn alias(&mut self, name: &str) -> usize {
        let mut data = Vec::new();
        for label in name.split('.') {
            data.push(u8::try_from(label.len()).expect("labels are short"));
            data.extend(label.as_bytes());
        }
        data.push(0);
        self.record(12, CNAME, 60, &data);
        self.start + self.written.len() - data.len()
    }

    fn record(&mut self, owner: usize, kind: u16, ttl: u32, data: &[u8]) {
        let owner = 0xc000 | u16::try_from(owner).expect("messages are short");
        self.written.extend(owner.to_be_bytes());
        self.written.extend(kind.to_be_bytes());
        self.written.extend([0, 1]);
        self.written.extend(ttl.to_be_bytes());
        self.written.extend(u16::try_from(data.len()).expect("records are short").to_be_bytes());
        self.written.extend(data);
        self.count += 1;
    }
}
