//! The receivers themselves: that they refuse what a real one would refuse. A test through a
//! receiver that takes anything proves nothing.

use std::process::Stdio;
use std::sync::Arc;

use klaxon_tests::authority::Authority;
use klaxon_tests::limit::within;
use klaxon_tests::receiver::{Answer, HOST, Hook, Receiver};
use klaxon_tests::smtp::{self, MailServer, Report};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Posts `{}` over HTTP/1.1 and returns the whole answer.
async fn post(authority: &Authority, receiver: &Receiver, path: &str, headers: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect(receiver.address()).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_receiver_verifies_records_and_answers_by_script() {
    let authority = Authority::new().unwrap();
    let receiver = Receiver::start(&authority).await.unwrap();
    receiver.serve("/signed", Hook::default().secret("secret"));
    let scripted = [Answer::status(503).header("retry-after", "7").body("later"), Answer::status(200)];
    receiver.serve("/scripted", Hook::default().answers(scripted));
    receiver.serve("/counted", Hook::default().counting());

    assert!(post(&authority, &receiver, "/nowhere", "").await.starts_with("HTTP/1.1 404"));
    assert!(post(&authority, &receiver, "/signed", "").await.starts_with("HTTP/1.1 401"));
    let wrong = "webhook-id: a\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n";
    assert!(post(&authority, &receiver, "/signed", wrong).await.starts_with("HTTP/1.1 401"));
    let first = post(&authority, &receiver, "/scripted", "x-a: b\r\n").await;
    assert!(
        first.starts_with("HTTP/1.1 503") && first.contains("retry-after: 7") && first.ends_with("later"),
        "{first}"
    );
    for _ in 0..2 {
        assert!(post(&authority, &receiver, "/scripted", "").await.starts_with("HTTP/1.1 200"));
    }
    let id = uuid::Uuid::new_v4();
    post(&authority, &receiver, "/counted", &format!("webhook-id: {id}\r\n")).await;
    assert_eq!(receiver.ids("/counted"), [id.as_u128()]);

    assert!(
        receiver.wait_at("/signed", 2).await.iter().all(|request| matches!(request.verified, Some(Err(_))))
    );
    let request = &receiver.requests_at("/scripted")[0];
    assert_eq!((request.header("x-a"), &request.body[..], request.status), ("b", &b"{}"[..], 503));
    assert_eq!(receiver.requests().len(), 6);
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release() {
    let authority = Authority::new().unwrap();
    let receiver = Receiver::start(&authority).await.unwrap();
    let (hook, release) = Hook::default().held();
    receiver.serve("/held", hook);
    let (answer, ()) = tokio::join!(post(&authority, &receiver, "/held", ""), async {
        receiver.wait_at("/held", 1).await;
        release.send(true).unwrap();
    });
    assert!(answer.starts_with("HTTP/1.1 200"));
}

/// A client in Python: one `smtplib` session, its errors on stdout.
async fn session(server: &MailServer, authority: &Authority, steps: &str) -> String {
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {}, local_hostname='client.test', timeout=30)\n\
         context = ssl.create_default_context(cafile='{}')\n\
         context.check_hostname = False\n\
         try:\n    client.ehlo()\n{}\n    print('accepted')\n\
         except smtplib.SMTPException as error:\n    print(type(error).__name__, error)\n",
        server.port(),
        authority.file().display(),
        steps.lines().map(|line| format!("    {line}\n")).collect::<String>(),
    );
    let output =
        Command::new("/usr/bin/python3").args(["-c", &script]).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_mail_server_demands_tls_and_a_login() {
    let authority = Authority::new().unwrap();
    let mut server = MailServer::start(&authority).await.unwrap();
    let send = "client.sendmail('a@b.c', ['d@e.f'], 'Subject: hello\\r\\n\\r\\nworld')";
    let clear = session(&server, &authority, send).await;
    assert!(clear.contains("530"), "{clear}");
    let nobody = session(&server, &authority, &format!("client.starttls(context=context)\n{send}")).await;
    assert!(nobody.contains("530"), "{nobody}");
    let wrong = "client.starttls(context=context)\nclient.login('klaxon@mail.test', 'wrong')";
    assert!(session(&server, &authority, wrong).await.contains("SMTPAuthenticationError"));
    let right = format!(
        "client.starttls(context=context)\nclient.login('{}', '{}')\n{send}",
        smtp::USER,
        smtp::PASSWORD
    );
    assert!(session(&server, &authority, &right).await.contains("accepted"));
    let message = loop {
        match server.next().await {
            Report::Message(message) => break message,
            // smtplib has tried every mechanism with the wrong password.
            Report::LoginRefused { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(message.tls);
    assert_eq!(message.user.as_deref(), Some(smtp::USER));
    assert_eq!((&message.headers["subject"][..], message.rcpt_tos), ("hello", vec!["d@e.f".to_owned()]));

    server.refuse_next("550 5.7.1 not today").await;
    assert!(session(&server, &authority, &right).await.contains("550"));
}
