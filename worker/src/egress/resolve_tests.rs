//! The guard against a name server that mixes, moves, lies and stays silent.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use tokio::net::UdpSocket;

use super::tests::options;
use super::*;

/// What the name server says of every name: its addresses, and for how many seconds.
#[derive(Clone, Default)]
pub struct Zone {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
    pub ttl: u32,
    pub silent: bool,
    /// Whether there is no such name.
    pub unknown: bool,
    /// How long it takes to answer.
    pub late: Duration,
}

pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
    pub guard: Arc<Guard>,
}

impl Dns {
    pub async fn serving(zone: Zone, options: GuardOptions) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicUsize::new(0)));
        let (served, count) = (Arc::clone(&zone), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                count.fetch_add(1, Ordering::SeqCst);
                let zone = served.lock().unwrap().clone();
                if !zone.silent {
                    tokio::time::sleep(zone.late).await;
                    socket.send_to(&reply(&query[..length], &zone), from).await.unwrap();
                }
            }
        });
        let mut udp = ConnectionConfig::udp();
        udp.port = port;
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![udp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = ResolverOpts::default();
        Self { zone, asked, guard: Arc::new(Guard::with_resolver(options, builder).unwrap()) }
    }

    /// How many queries there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn target(&self) -> Result<Vec<SocketAddr>, EgressError> {
        self.guard.target("name.example", 443, Purpose::Https).await
    }
}

/// An answer to the one question of a query (RFC 1035 section 4): the header with its counts, the
/// question again, and a record for each address of the family asked for. Where there is none, a SOA
/// record says how long that is to be believed (RFC 2308 section 2).
fn reply(query: &[u8], zone: &Zone) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap() + 13;
    let question = &query[12..name + 4];
    let kind = u16::from_be_bytes([query[name], query[name + 1]]);
    let records: Vec<Vec<u8>> = match kind {
        1 => zone.v4.iter().map(|address| address.octets().to_vec()).collect(),
        28 => zone.v6.iter().map(|address| address.octets().to_vec()).collect(),
        _ => Vec::new(),
    };
    let mut reply = query[..2].to_vec();
    let (answers, authorities) = (u8::try_from(records.len()).unwrap(), u8::from(records.is_empty()));
    reply.extend([0x81, 0x80 | if zone.unknown { 3 } else { 0 }, 0, 1, 0, answers, 0, authorities, 0, 0]);
    reply.extend(question);
    let mut record = |kind: u16, data: &[u8]| {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1]);
        reply.extend(zone.ttl.to_be_bytes());
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend(data);
    };
    if records.is_empty() {
        let numbers = [1, 1, 1, 1, zone.ttl].map(u32::to_be_bytes).concat();
        record(6, &[&[0, 0], numbers.as_slice()].concat());
    }
    records.iter().for_each(|data| record(kind, data));
    reply
}

pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const OTHER: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 33);
const PUBLIC_6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 1);

#[tokio::test]
async fn an_answer_is_judged_whole() {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (v4, v6, allowed) in [
        (vec![PUBLIC], vec![], true),
        (vec![], vec![PUBLIC_6], true),
        (vec![PUBLIC, OTHER], vec![PUBLIC_6], true),
        (vec![Ipv4Addr::LOCALHOST], vec![], false),
        (vec![PUBLIC, Ipv4Addr::LOCALHOST], vec![], false),
        (vec![PUBLIC], vec![Ipv6Addr::LOCALHOST], false),
        (vec![PUBLIC], vec![PUBLIC_6, mapped], false),
        (vec![Ipv4Addr::new(10, 0, 0, 1)], vec![PUBLIC_6], false),
    ] {
        let shown = format!("{v4:?} {v6:?}");
        let dns = Dns::serving(Zone { v4, v6, ttl: 60, ..Zone::default() }, options()).await;
        let found = dns.target().await;
        assert_eq!(found.is_ok(), allowed, "{shown}");
        assert!(allowed || found == Err(EgressError::Policy), "{shown}");
    }
}

#[tokio::test]
async fn the_order_of_an_answer_is_of_no_account() {
    let zone = Zone { v4: vec![PUBLIC, OTHER], v6: vec![PUBLIC_6], ttl: 0, ..Zone::default() };
    let dns = Dns::serving(zone, options()).await;
    let expected = Ok(vec![(OTHER, 443).into(), (PUBLIC, 443).into(), (PUBLIC_6, 443).into()]);
    assert_eq!(dns.target().await, expected);
    dns.zone.lock().unwrap().v4.reverse();
    assert_eq!(dns.target().await, expected);
}

#[tokio::test]
async fn a_name_that_moves_is_judged_anew() {
    // Believed for no time at all, as one that means to move would have it.
    let dns = Dns::serving(Zone { v4: vec![PUBLIC], ttl: 0, ..Zone::default() }, options()).await;
    assert!(dns.target().await.is_ok());
    dns.zone.lock().unwrap().v4 = vec![Ipv4Addr::LOCALHOST];
    assert_eq!(dns.target().await, Err(EgressError::Policy));
}

#[tokio::test]
async fn an_answer_is_believed_no_longer_than_the_operator_says() {
    for (dns_ttl, asked_again) in [(Duration::ZERO, true), (Duration::from_secs(30), false)] {
        for (v4, unknown) in [(vec![PUBLIC], false), (vec![], false), (vec![], true)] {
            let zone = Zone { v4, unknown, ttl: 86_400, ..Zone::default() };
            let dns = Dns::serving(zone, GuardOptions { dns_ttl, ..options() }).await;
            let first = dns.target().await;
            let asked = dns.asked();
            assert_eq!(dns.target().await, first);
            assert_eq!(dns.asked() > asked, asked_again, "{first:?} {dns_ttl:?}");
        }
    }
}

#[tokio::test]
async fn silence_is_no_address() {
    let options = GuardOptions { dns_timeout: Duration::from_millis(100), ..options() };
    let dns = Dns::serving(Zone { silent: true, ..Zone::default() }, options).await;
    assert_eq!(dns.target().await, Err(EgressError::Unresolved));
}
