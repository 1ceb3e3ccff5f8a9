//! What goes over the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use hyper::HeaderMap;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::*;

/// A receiver that keeps its connections, counts them, and hands on the heads of requests.
struct Receiver {
    http: Http,
    port: u16,
    connections: Arc<AtomicUsize>,
    heads: mpsc::UnboundedReceiver<String>,
    _ca: tempfile::NamedTempFile,
}

/// What a receiver does with a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    /// Closes it without having said so.
    Close,
    /// Promises more than is read, and sends no more of it than that.
    Drown,
    /// Answers no second request.
    Hang,
}

impl Receiver {
    async fn start(after: After) -> Self {
        Self::listen(move |stream, tell| converse(stream, tell, after), &[b"http/1.1"]).await
    }

    /// One that speaks HTTP/2, and says goodbye to each connection after so many requests.
    async fn http2(requests: usize) -> Self {
        Self::listen(move |stream, tell| converse2(stream, tell, requests), &[b"h2", b"http/1.1"]).await
    }

    async fn listen<F, C>(serve: C, protocols: &[&[u8]]) -> Self
    where
        C: Fn(TlsStream<TcpStream>, mpsc::UnboundedSender<String>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let names = vec!["receiver.test".to_owned(), "other.test".to_owned(), "127.0.0.1".to_owned()];
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), key.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private.into())
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let (tell, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                tokio::spawn(serve(stream, tell.clone()));
            }
        });
        let guard = Guard::new(GuardOptions {
            allow_http: false,
            allow_ports: vec![8443, port],
            egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
            connect_to: vec![format!("::127.0.0.1:{port}").parse().unwrap()],
            ca_file: Some(ca.path().to_owned()),
            http_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            dns_timeout: Duration::from_secs(5),
            dns_ttl: Duration::from_secs(30),
            response_cap: 8192,
        })
        .unwrap();
        Self { http: Http::new(Arc::new(guard)).unwrap(), port, connections, heads, _ca: ca }
    }

    async fn post_to(&self, url: &str) -> Result<Reply, HttpError> {
        let post = Post { url: url.parse().unwrap(), headers: HeaderMap::new(), body: "{}".into() };
        self.http.post(post).await
    }

    async fn post(&self) -> u16 {
        self.post_to("https://receiver.test/hook?k=v").await.unwrap().status
    }

    fn opened(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn thousand(&self, at_once: usize) {
        let posts = futures_util::stream::iter(0..1000).map(|_| self.post()).buffer_unordered(at_once);
        assert!(posts.all(|status| async move { status == 200 }).await);
    }
}

async fn converse(stream: TlsStream<TcpStream>, tell: mpsc::UnboundedSender<String>, after: After) {
    let mut stream = BufReader::new(stream);
    let mut requests = 0;
    while let Some(head) = request(&mut stream).await {
        let _ = tell.send(head);
        requests += 1;
        if after == After::Hang && requests > 1 {
            std::future::pending::<()>().await;
        }
        let (body, promised) =
            if after == After::Drown { ("x".repeat(20_000), 1_000_000) } else { ("ok".to_owned(), 2) };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if after == After::Close {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn converse2(stream: TlsStream<TcpStream>, tell: mpsc::UnboundedSender<String>, requests: usize) {
    let served = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(tokio::sync::Notify::new());
    let service = hyper::service::service_fn({
        let enough = Arc::clone(&enough);
        move |request: Request<Incoming>| {
            let _ = tell.send(format!("{} {:?}", request.uri(), request.headers().get("host")));
            if served.fetch_add(1, Ordering::SeqCst) + 1 >= requests {
                enough.notify_one();
            }
            async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(hyper::body::Bytes::from("ok"))))
            }
        }
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let connection = hyper::server::conn::http2::Builder::new(executor)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = enough.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The head of one request, in lower case; its body is read and dropped.
async fn request<R: tokio::io::AsyncBufRead + Unpin>(stream: &mut R) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    head.make_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
}

#[tokio::test]
async fn a_request_names_its_host_and_asks_for_no_encoding() {
    let mut receiver = Receiver::start(After::Keep).await;
    assert_eq!(receiver.post().await, 200);
    let head = receiver.heads.recv().await.unwrap();
    assert!(head.starts_with("post /hook?k=v http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: receiver.test\r\n"), "{head}");
    assert!(head.contains(concat!("\r\nuser-agent: klaxon/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    assert!(!head.contains("accept-encoding"), "{head}");
}

#[tokio::test]
async fn a_thousand_requests_open_as_many_connections_as_there_are_at_once() {
    for at_once in [16, 64] {
        let receiver = Receiver::start(After::Keep).await;
        receiver.thousand(at_once).await;
        assert!(receiver.opened() <= at_once, "{} connections", receiver.opened());
    }
}

#[tokio::test]
async fn of_http2_there_is_one_connection() {
    let mut receiver = Receiver::http2(usize::MAX).await;
    receiver.thousand(16).await;
    assert_eq!(receiver.opened(), 1);
    assert_eq!(receiver.heads.recv().await.unwrap(), "https://receiver.test/hook?k=v None");
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_replaced() {
    let receiver = Receiver::http2(10).await;
    for _ in 0..100 {
        assert_eq!(receiver.post().await, 200);
    }
    assert!((2..=100).contains(&receiver.opened()), "{} connections", receiver.opened());
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_request() {
    let receiver = Receiver::start(After::Close).await;
    for _ in 0..50 {
        assert_eq!(receiver.post().await, 200);
    }
    assert_eq!(receiver.opened(), 50);
}

#[tokio::test]
async fn an_answer_longer_than_the_cap_ends_its_connection() {
    let receiver = Receiver::start(After::Drown).await;
    for posted in 1..=3 {
        let reply = receiver.post_to("https://receiver.test/").await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (200, 8192));
        assert_eq!(receiver.opened(), posted);
    }
}

#[tokio::test]
async fn a_connection_without_an_answer_is_not_used_again() {
    let receiver = Receiver::start(After::Hang).await;
    assert_eq!(receiver.post().await, 200);
    let error = receiver.post_to("https://receiver.test/").await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 2.0s");
    assert_eq!(receiver.post().await, 200);
    assert_eq!(receiver.opened(), 2);
}

#[tokio::test]
async fn names_at_one_address_share_no_connection() {
    let mut receiver = Receiver::start(After::Keep).await;
    let literal = format!("https://127.0.0.1:{}/", receiver.port);
    for (url, host, opened) in [
        ("https://receiver.test/", "receiver.test", 1),
        ("https://other.test/", "other.test", 2),
        ("https://receiver.test:8443/", "receiver.test:8443", 3),
        ("https://receiver.test/again", "receiver.test", 3),
        (&literal, &literal[8..literal.len() - 1], 4),
    ] {
        assert_eq!(receiver.post_to(url).await.unwrap().status, 200);
        let head = receiver.heads.recv().await.unwrap();
        assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
        assert_eq!(receiver.opened(), opened, "{url}");
    }
}

#[tokio::test]
async fn a_port_that_is_stated_is_part_of_the_authority() {
    let mut receiver = Receiver::http2(usize::MAX).await;
    receiver.post_to("https://receiver.test:8443/x").await.unwrap();
    assert_eq!(receiver.heads.recv().await.unwrap(), "https://receiver.test:8443/x None");
}
