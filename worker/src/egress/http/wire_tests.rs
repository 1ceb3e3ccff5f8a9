//! What goes over the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

use super::*;

/// A receiver that hands on the heads of requests.
struct Receiver {
    http: Http,
    url: Url,
    heads: mpsc::UnboundedReceiver<String>,
    _ca: tempfile::NamedTempFile,
}

impl Receiver {
    async fn start() -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["receiver.test".to_owned()]).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), key.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, tell) = (acceptor.clone(), tell.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut stream = BufReader::new(stream);
                    while let Some(head) = request(&mut stream).await {
                        let _ = tell.send(head);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let guard = Guard::new(GuardOptions {
            allow_http: false,
            allow_ports: Vec::new(),
            egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
            connect_to: vec![format!("receiver.test:443:127.0.0.1:{port}").parse().unwrap()],
            ca_file: Some(ca.path().to_owned()),
            http_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(30),
            dns_timeout: Duration::from_secs(5),
            dns_ttl: Duration::from_secs(30),
            response_cap: 8192,
        })
        .unwrap();
        let http = Http::new(Arc::new(guard)).unwrap();
        Self { http, url: "https://receiver.test/hook?k=v".parse().unwrap(), heads, _ca: ca }
    }

    async fn post(&self) -> u16 {
        let post = Post { url: self.url.clone(), headers: HeaderMap::new(), body: "{}".into() };
        self.http.post(post).await.unwrap().status
    }
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
    let mut receiver = Receiver::start().await;
    assert_eq!(receiver.post().await, 200);
    let head = receiver.heads.recv().await.unwrap();
    assert!(head.starts_with("post /hook?k=v http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: receiver.test\r\n"), "{head}");
    assert!(head.contains(concat!("\r\nuser-agent: klaxon/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    assert!(!head.contains("accept-encoding"), "{head}");
}
