//! A receiver that costs as little as one can: HTTP/1.1 in clear, connections kept, an empty answer. It
//! remembers what came and when, on a thread of its own, so that nothing of the bench's delays it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use uuid::Uuid;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// Headers of a request at most.
const HEADERS: usize = 32;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The delivery: its `webhook-id`.
    pub delivery: Uuid,
    /// The event: the body's `id`.
    pub event: Uuid,
    /// When all of it was there.
    pub at: Instant,
}

/// What came at one path.
#[derive(Default)]
struct Box {
    arrivals: Vec<Arrival>,
    awaited: Option<(usize, oneshot::Sender<()>)>,
}

type Boxes = Mutex<HashMap<String, Box>>;

/// The receiver. It ends with the process.
pub struct Sink {
    address: SocketAddr,
    boxes: Arc<Boxes>,
}

impl Sink {
    /// Starts one on a free port.
    pub fn start() -> anyhow::Result<Self> {
        Self::taking(Duration::ZERO)
    }

    /// Starts one that takes its time to answer.
    pub fn taking(time: Duration) -> anyhow::Result<Self> {
        let boxes = Arc::<Boxes>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::clone(&boxes);
        thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(converse(stream, Arc::clone(&shared), time));
                }
            });
        });
        Ok(Self { address, boxes })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What came at a path so far.
    pub fn arrivals(&self, path: &str) -> Vec<Arrival> {
        lock(&self.boxes).get(&format!("/{path}")).map(|found| found.arrivals.clone()).unwrap_or_default()
    }

    /// Forgets what came at a path.
    pub fn clear(&self, path: &str) {
        lock(&self.boxes).remove(&format!("/{path}"));
    }

    /// Returns when `count` requests have come at a path since it was last cleared.
    pub async fn wait(&self, path: &str, count: usize, limit: Duration) -> anyhow::Result<()> {
        let (tell, told) = oneshot::channel();
        {
            let mut boxes = lock(&self.boxes);
            let found = boxes.entry(format!("/{path}")).or_default();
            if found.arrivals.len() >= count {
                return Ok(());
            }
            found.awaited = Some((count, tell));
        }
        let came = tokio::time::timeout(limit, told).await;
        came.map_err(|_| self.arrivals(path).len())
            .map_err(|came| anyhow::anyhow!("{came} of {count} requests at {path} within {limit:?}"))?
            .context("somebody else waits for the same path")
    }

    /// Waits until `count` different deliveries have come at a path; how many requests there were on top.
    pub async fn wait_each(&self, path: &str, count: usize, limit: Duration) -> anyhow::Result<usize> {
        let mut wanted = count;
        loop {
            self.wait(path, wanted, limit).await?;
            let mut ids: Vec<Uuid> = self.arrivals(path).iter().map(|arrival| arrival.delivery).collect();
            let came = ids.len();
            ids.sort_unstable();
            ids.dedup();
            anyhow::ensure!(ids.len() <= count, "{} deliveries where there should be {count}", ids.len());
            if ids.len() == count {
                return Ok(came - count);
            }
            // Some came twice before others came at all.
            wanted = came + count - ids.len();
        }
    }

    /// Waits likewise, and checks that each delivery came once.
    pub async fn wait_once_each(&self, path: &str, count: usize, limit: Duration) -> anyhow::Result<()> {
        let more = self.wait_each(path, count, limit).await?;
        anyhow::ensure!(more == 0, "{more} of {count} deliveries came again");
        Ok(())
    }

    /// Seconds from the first arrival at a path to the last.
    pub fn span(&self, path: &str) -> f64 {
        let arrivals = self.arrivals(path);
        let (first, last) = (arrivals.iter().map(|a| a.at).min(), arrivals.iter().map(|a| a.at).max());
        first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }
}

fn lock(boxes: &Boxes) -> MutexGuard<'_, HashMap<String, Box>> {
    boxes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's path, its `webhook-id`, and where its body begins and ends; none while it is not whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(&str, Uuid, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(begin) = request.parse(bytes)? else { return Ok(None) };
    let (mut length, mut delivery) = (0, Uuid::nil());
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value)?.parse()?;
        } else if header.name.eq_ignore_ascii_case("webhook-id") {
            delivery = Uuid::try_parse_ascii(header.value)?;
        }
    }
    let end = begin + length;
    Ok((bytes.len() >= end).then(|| (request.path.unwrap_or_default(), delivery, begin, end)))
}

/// The event of a body, which begins with `{"id":"…"`.
fn event(body: &[u8]) -> Uuid {
    body.get(7..43).and_then(|id| Uuid::try_parse_ascii(id).ok()).unwrap_or_default()
}

async fn converse(mut stream: TcpStream, boxes: Arc<Boxes>, time: Duration) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    while stream.read_buf(&mut buffer).await? > 0 {
        let Some((path, delivery, begin, end)) = parse(&buffer)? else { continue };
        let arrival = Arrival { delivery, event: event(&buffer[begin..end]), at: Instant::now() };
        {
            let mut boxes = lock(&boxes);
            let found = match boxes.get_mut(path) {
                Some(found) => found,
                None => boxes.entry(path.to_owned()).or_default(),
            };
            found.arrivals.push(arrival);
            if found.awaited.as_ref().is_some_and(|(count, _)| found.arrivals.len() >= *count)
                && let Some((_, tell)) = found.awaited.take()
            {
                // Whoever waited may have given up.
                let _ = tell.send(());
            }
        }
        buffer.drain(..end);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}
