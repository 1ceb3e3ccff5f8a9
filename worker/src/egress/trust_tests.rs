//! Certificates that sign themselves, as `openssl req -x509` makes them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use klaxon_channel::form::{Sent, Server};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::smtp::Mailer;
use super::smtp::tests::{mail, scripted_by, secret};
use super::tests::{acceptor, answer, post, to};
use super::*;

/// TLS by a certificate that is its own authority and valid in these years, and a file with it.
fn own(name: &str, years: (i32, i32)) -> (TlsAcceptor, NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let certificate = params.self_signed(&key).unwrap();
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    (acceptor(certificate.der().clone(), &key), file)
}

async fn asked(host: &str, years: (i32, i32), listed: bool) -> Result<u16, String> {
    let (tls, ca) = own("receiver.test", years);
    let port = answer(tls, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let options = to(port, host, listed.then_some(&ca));
    post(&format!("https://{host}/x"), options).await.map(|reply| reply.status)
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_believed_where_ca_file_has_it() {
    assert_eq!(asked("receiver.test", (2000, 2100), true).await, Ok(200));
    for (host, years, listed) in [
        ("other.test", (2000, 2100), true),
        ("receiver.test", (2000, 2001), true),
        ("receiver.test", (2099, 2100), true),
        ("receiver.test", (2000, 2100), false),
    ] {
        let problem = asked(host, years, listed).await.unwrap_err();
        assert!(problem.contains("certificate"), "{host} {years:?} {listed}: {problem}");
    }
}

#[tokio::test]
async fn what_ca_file_has_of_the_same_name_vouches_for_no_other_key() {
    let (tls, _) = own("receiver.test", (2000, 2100));
    let (_, other) = own("receiver.test", (2000, 2100));
    let port = answer(tls, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let problem = post("https://receiver.test/x", to(port, "receiver.test", Some(&other))).await.unwrap_err();
    assert!(problem.contains("certificate"), "{problem}");
}

#[tokio::test]
async fn mail_believes_the_same_certificates() {
    for (host, years, listed, believed) in [
        ("mail.test", (2000, 2100), true, true),
        ("other.test", (2000, 2100), true, false),
        ("mail.test", (2000, 2001), true, false),
        ("mail.test", (2000, 2100), false, false),
    ] {
        let (tls, ca) = own("mail.test", years);
        let (told, mut guard) = scripted_by(tls, vec![&[]]).await;
        guard.ca_file = listed.then(|| ca.path().to_owned());
        let mailer = Mailer::new(Arc::new(Guard::new(guard).unwrap())).unwrap();
        let sent = mailer.send(&Server { host: host.into(), ..secret() }, mail()).await;
        let case = format!("{host} {years:?} {listed}: {sent:?}");
        assert_eq!(matches!(sent, Sent::Accepted { .. }), believed, "{case}");
        assert_eq!(told.said("AUTH") + told.said("MAIL"), if believed { 2 } else { 0 }, "{case}");
    }
}

/// From the start, as on port 465.
#[tokio::test]
async fn mail_that_is_secret_from_the_start_believes_the_same_certificates() {
    for listed in [true, false] {
        let (tls, ca) = own("mail.test", (2000, 2100));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tls.accept(stream).await.is_ok()
        });
        let guard = GuardOptions {
            ca_file: listed.then(|| ca.path().to_owned()),
            connect_to: vec![format!("::127.0.0.1:{port}").parse().unwrap()],
            ..to(port, "mail.test", None)
        };
        let mailer = Mailer::new(Arc::new(Guard::new(guard).unwrap())).unwrap();
        let server = Server { port: 465, ..secret() };
        let sent = mailer.send(&server, mail()).await;
        assert_eq!(accepted.await.unwrap(), listed, "{sent:?}");
    }
}
