//! The guard as a whole, and real connections over loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::HeaderMap;
use klaxon_channel::form::{Post, Reply};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

pub fn options() -> GuardOptions {
    GuardOptions {
        allow_http: false,
        allow_ports: Vec::new(),
        egress_allow: Vec::new(),
        connect_to: Vec::new(),
        ca_file: None,
        http_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        dns_timeout: Duration::from_secs(5),
        dns_ttl: Duration::from_secs(30),
        response_cap: 8192,
    }
}

#[test]
fn connect_to_reads_as_curls() {
    let read = |text: &str| text.parse::<ConnectTo>();
    let full = read("Example.com:443:127.0.0.1:8443").unwrap();
    assert_eq!(
        (full.host.as_str(), full.port, full.to_host.as_str(), full.to_port),
        ("example.com", Some(443), "127.0.0.1", Some(8443))
    );
    let any = read("::[::1]:9000").unwrap();
    assert_eq!(
        (any.host.as_str(), any.port, any.to_host.as_str(), any.to_port),
        ("", None, "::1", Some(9000))
    );
    for wrong in ["", "a:b:c:d", "a:1:b", "a:1:b:2:c", "a:70000:b:1"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn connect_to_reads_back_and_never_panics(
        text in "[\\[\\]:.a-z0-9é]{0,30}|\\PC{0,30}",
        host in "[a-z.-]{0,12}",
        v6: std::net::Ipv6Addr,
        ports: (Option<u16>, Option<u16>),
    ) {
        // Whatever it is, it is read or refused, and a refusal repeats it.
        if let Err(error) = text.parse::<ConnectTo>() {
            proptest::prop_assert!(error.to_string().contains(&text), "{}", error);
        }
        let shown = |port: Option<u16>| port.map_or_else(String::new, |port| port.to_string());
        let written = format!("{host}:{}:[{v6}]:{}", shown(ports.0), shown(ports.1));
        let expected = ConnectTo { host, port: ports.0, to_host: v6.to_string(), to_port: ports.1 };
        proptest::prop_assert_eq!(written.parse::<ConnectTo>().unwrap(), expected);
    }
}

#[tokio::test]
async fn ports_schemes_and_addresses_are_judged() {
    let guard = Guard::new(GuardOptions {
        allow_ports: vec![8443, 2525, 1025],
        egress_allow: vec!["10.1.0.0/16".parse().unwrap()],
        connect_to: vec![
            "pinned.example:443:10.1.2.3:8443".parse().unwrap(),
            "inside.example::127.0.0.1:".parse().unwrap(),
            "9.9.9.9:443:10.1.2.3:443".parse().unwrap(),
        ],
        ..options()
    })
    .unwrap();
    for (host, port, purpose, expected) in [
        ("8.8.8.8", 443, Purpose::Https, Ok("8.8.8.8:443")),
        ("8.8.8.8", 8443, Purpose::Https, Ok("8.8.8.8:8443")),
        ("8.8.8.8", 25, Purpose::Https, Err(EgressError::Port(25))),
        ("8.8.8.8", 22, Purpose::Https, Err(EgressError::Port(22))),
        ("8.8.8.8", 80, Purpose::Http, Err(EgressError::Clear)),
        ("8.8.8.8", 587, Purpose::Smtp, Ok("8.8.8.8:587")),
        ("8.8.8.8", 443, Purpose::Smtp, Err(EgressError::Port(443))),
        ("127.0.0.1", 443, Purpose::Https, Err(EgressError::Policy)),
        ("[::1]", 443, Purpose::Https, Err(EgressError::Policy)),
        ("169.254.169.254", 443, Purpose::Https, Err(EgressError::Policy)),
        ("10.1.9.9", 443, Purpose::Https, Ok("10.1.9.9:443")),
        ("PINNED.example", 443, Purpose::Https, Ok("10.1.2.3:8443")),
        ("pinned.example.", 443, Purpose::Https, Ok("10.1.2.3:8443")),
        // connect-to opens no address by itself.
        ("inside.example", 443, Purpose::Https, Err(EgressError::Policy)),
        // It pins names: an address is dialled as it is written, and judged as that.
        ("9.9.9.9", 443, Purpose::Https, Ok("9.9.9.9:443")),
        // allow-port opens no mail server to requests.
        ("8.8.8.8", 2525, Purpose::Https, Err(EgressError::Port(2525))),
        ("8.8.8.8", 1025, Purpose::Smtp, Ok("8.8.8.8:1025")),
    ] {
        let found = guard.target(host, port, purpose).await.map(|addresses| addresses[0].to_string());
        assert_eq!(found, expected.map(str::to_owned), "{host}:{port} {purpose:?}");
    }
}

#[test]
fn a_refusal_names_no_address() {
    for error in [EgressError::Policy, EgressError::Port(22), EgressError::Clear, EgressError::Unresolved] {
        assert!(!error.to_string().contains('.'), "{error}");
    }
    assert_eq!(EgressError::Policy.to_string(), "egress refused: target refused by policy");
}

/// TLS for a server of that name, and the file of the authority that says so.
pub fn authority(name: &str) -> (tokio_rustls::TlsAcceptor, tempfile::NamedTempFile) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca_pem).unwrap();
    (acceptor(leaf.der().clone(), &key), file)
}

/// TLS by this certificate.
pub fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(tls))
}

/// A TLS server for `receiver.test` that answers one request a connection with `response`.
async fn server(response: Vec<u8>) -> (u16, tempfile::NamedTempFile) {
    let (acceptor, file) = authority("receiver.test");
    (answer(acceptor, response).await, file)
}

/// The same by any certificate.
pub async fn answer(acceptor: tokio_rustls::TlsAcceptor, response: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, response) = (acceptor.clone(), response.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&response).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

pub async fn post(url: &str, options: GuardOptions) -> Result<Reply, String> {
    let http = Http::new(Arc::new(Guard::new(options).unwrap())).unwrap();
    let post = Post { url: url.parse().unwrap(), headers: HeaderMap::new(), body: "{}".into() };
    http.post(post).await.map_err(|error| error.to_string())
}

pub fn to(port: u16, host: &str, ca: Option<&tempfile::NamedTempFile>) -> GuardOptions {
    GuardOptions {
        egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
        connect_to: vec![format!("{host}:443:127.0.0.1:{port}").parse().unwrap()],
        ca_file: ca.map(|file| file.path().to_owned()),
        ..options()
    }
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_name() {
    let (port, ca) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()).await;
    let reply = post("https://receiver.test/x", to(port, "receiver.test", Some(&ca))).await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"ok".as_slice()));
    let rooted = post("https://receiver.test./x", to(port, "receiver.test", Some(&ca))).await.unwrap();
    assert_eq!(rooted.status, 200, "a final dot is not part of the certificate's name");
    let other = post("https://other.test/x", to(port, "other.test", Some(&ca))).await.unwrap_err();
    assert!(other.contains("certificate"), "{other}");
    let unknown = post("https://receiver.test/x", to(port, "receiver.test", None)).await.unwrap_err();
    assert!(unknown.contains("certificate"), "{unknown}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_body_is_capped() {
    let (port, ca) = server(
        b"HTTP/1.1 302 Found\r\nlocation: https://receiver.test/y\r\ncontent-length: 0\r\n\r\n".to_vec(),
    )
    .await;
    assert_eq!(
        post("https://receiver.test/x", to(port, "receiver.test", Some(&ca))).await.unwrap().status,
        302
    );

    let mut long = b"HTTP/1.1 500 No\r\ncontent-length: 100000\r\n\r\n".to_vec();
    long.extend(vec![b'x'; 100_000]);
    let (port, ca) = server(long).await;
    assert_eq!(
        post("https://receiver.test/x", to(port, "receiver.test", Some(&ca))).await.unwrap().body.len(),
        8192
    );
}

#[tokio::test]
async fn what_is_compressed_stays_so() {
    // The gzip of "ok", and a promise of more than the cap that it would become.
    let mut gzip = b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: 22\r\n\r\n".to_vec();
    let body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\xcf\x06\0\x47\xdd\xdc\x79\x02\0\0\0";
    gzip.extend(body);
    let (port, ca) = server(gzip).await;
    let reply = post("https://receiver.test/x", to(port, "receiver.test", Some(&ca))).await.unwrap();
    assert_eq!(reply.body, body);
}

/// A server that goes on with this after its answer's beginning, without end and with a pause after
/// each; and how often it has, once nobody reads any more.
async fn endless(
    beginning: &'static [u8],
    more: Vec<u8>,
    pause: Option<Duration>,
) -> (u16, tokio::sync::oneshot::Receiver<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, sent) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut request, mut count) = ([0; 4096], 0);
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(beginning).await;
        while stream.write_all(&more).await.is_ok() {
            count += 1;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        let _ = tell.send(count);
    });
    (port, sent)
}

const CHUNKED: &[u8] = b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n";

fn in_clear(port: u16) -> GuardOptions {
    GuardOptions { allow_http: true, allow_ports: vec![port], ..to(1, "x.test", None) }
}

#[tokio::test]
async fn a_body_without_end_is_dropped_at_the_cap() {
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let (port, sent) = endless(CHUNKED, chunk.into(), None).await;
    let reply = post(&format!("http://127.0.0.1:{port}/"), in_clear(port)).await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (500, 8192));
    // The server notices: its connection is gone, whether or not anybody posts again.
    assert!(sent.await.unwrap() >= 8);
}

/// A name server takes a second for both families, and an answer drips: the limit is one for both.
async fn posts_to_the_slow(beginning: &'static [u8], more: &[u8]) {
    use super::resolve_tests::{Dns, Zone};
    let (port, sent) = endless(beginning, more.into(), Some(Duration::from_millis(20))).await;
    let limit = Duration::from_secs(2);
    let options = GuardOptions { http_timeout: limit, ..in_clear(port) };
    let late = Duration::from_millis(500);
    let zone = Zone { v4: vec![Ipv4Addr::LOCALHOST], ttl: 60, late, ..Zone::default() };
    let dns = Dns::serving(zone, options).await;
    let url = format!("http://name.example:{port}/").parse().unwrap();
    let http = Http::new(Arc::clone(&dns.guard)).unwrap();
    let began = tokio::time::Instant::now();
    let error = http.post(Post { url, headers: HeaderMap::new(), body: "{}".into() }).await.unwrap_err();
    let took = began.elapsed();
    assert_eq!(error.to_string(), "no answer within 2.0s");
    // A limit for each of the two would take longer by what the name server took.
    assert!(took >= limit && took < limit + 2 * late, "{took:?}");
    assert!(sent.await.unwrap() > 0, "the answer had begun");
}

#[tokio::test]
async fn one_limit_covers_a_slow_name_server_and_a_slow_answer() {
    let body = posts_to_the_slow(CHUNKED, b"1\r\nx\r\n");
    let head = posts_to_the_slow(b"HTTP/1.1 500 No\r\nx: ", b"x");
    tokio::join!(body, head);
}

#[tokio::test]
async fn errors_name_no_url() {
    let error = post("https://receiver.test/secret-path", to(1, "receiver.test", None)).await.unwrap_err();
    assert!(error.contains("cannot connect") && !error.contains("secret-path"), "{error}");
    assert!(!error.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn no_answer_is_waited_for_longer_than_the_timeout() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options =
        GuardOptions { http_timeout: Duration::from_millis(200), ..to(port, "receiver.test", None) };
    assert_eq!(post("https://receiver.test/x", options).await.unwrap_err(), "no answer within 200.0ms");
}

#[tokio::test]
async fn a_port_in_the_url_is_pinned_as_well() {
    let (port, ca) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()).await;
    let options = GuardOptions {
        allow_ports: vec![8443],
        connect_to: vec![format!("receiver.test:8443:127.0.0.1:{port}").parse().unwrap()],
        ..to(port, "receiver.test", Some(&ca))
    };
    assert_eq!(post("https://receiver.test:8443/x", options).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_judged_is_what_is_dialled() {
    let forbidden = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    let port = forbidden.local_addr().unwrap().port();
    let options = GuardOptions {
        allow_http: true,
        allow_ports: vec![port],
        egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
        connect_to: vec!["::127.0.0.1:9".parse().unwrap()],
        http_timeout: Duration::from_millis(500),
        ..options()
    };
    let error = post(&format!("http://127.0.0.2:{port}/"), options).await.unwrap_err();
    assert_eq!(error, "egress refused: target refused by policy");
    assert!(forbidden.accept().now_or_never().is_none(), "dialled");
}
