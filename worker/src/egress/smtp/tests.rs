//! Conversations with a server that answers as it is told.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use klaxon_channel::form::{Login, Refusal};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::egress::tests::{authority, options};
use crate::egress::{Guard, GuardOptions};

/// Replies by the beginning of what was said; "" is none.
pub type Script = &'static [(&'static str, &'static str)];

/// What the server was told, and how often it was called.
#[derive(Default)]
pub struct Told {
    lines: Mutex<Vec<String>>,
    calls: AtomicUsize,
}

impl Told {
    pub fn said(&self, beginning: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.starts_with(beginning)).count()
    }
}

async fn serve(scripts: Vec<Script>) -> (Arc<Told>, Mailer) {
    let (told, guard, _ca) = scripted(scripts).await;
    (told, Mailer::new(Arc::new(Guard::new(guard).unwrap())).unwrap())
}

/// Serves each call by the next script, the last one for ever; how to get there, while the
/// authority's file lasts.
pub async fn scripted(scripts: Vec<Script>) -> (Arc<Told>, GuardOptions, tempfile::NamedTempFile) {
    let (tls, ca) = authority("mail.test");
    let (told, guard) = scripted_by(tls, scripts).await;
    (told, GuardOptions { ca_file: Some(ca.path().to_owned()), ..guard }, ca)
}

/// The same by any certificate.
pub async fn scripted_by(tls: TlsAcceptor, scripts: Vec<Script>) -> (Arc<Told>, GuardOptions) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(Told::default());
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let call = heard.calls.fetch_add(1, Ordering::SeqCst);
            let script = scripts[call.min(scripts.len() - 1)];
            let (told, tls) = (Arc::clone(&heard), tls.clone());
            tokio::spawn(async move {
                let mut clear = BufReader::new(stream);
                if converse(&mut clear, script, &told, true).await
                    && let Ok(secret) = tls.accept(clear.into_inner()).await
                {
                    converse(&mut BufReader::new(secret), script, &told, false).await;
                }
            });
        }
    });
    let guard = GuardOptions {
        egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
        connect_to: vec![format!("::127.0.0.1:{port}").parse().unwrap()],
        http_timeout: Duration::from_millis(500),
        ..options()
    };
    (told, guard)
}

/// Until the other side goes (`false`) or wants TLS (`true`).
async fn converse(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    script: Script,
    told: &Told,
    greet: bool,
) -> bool {
    if greet {
        let greeting = script.iter().find(|(beginning, _)| beginning.is_empty());
        let greeting = greeting.map_or("220 hi\r\n", |(_, said)| said);
        if stream.write_all(greeting.as_bytes()).await.is_err() {
            return false;
        }
    }
    let (mut line, mut mail) = (String::new(), false);
    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
        let said = line.trim_end().to_owned();
        line.clear();
        if mail && said != "." {
            continue;
        }
        let scripted =
            script.iter().find(|(beginning, _)| !beginning.is_empty() && said.starts_with(beginning));
        let reply = scripted.map_or_else(
            || match said.split(' ').next().unwrap_or_default() {
                "EHLO" => "250-mail.test\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
                "STARTTLS" => "220 go\r\n",
                "DATA" => "354 go\r\n",
                "AUTH" => "235 in\r\n",
                _ => "250 ok\r\n",
            },
            |(_, said)| said,
        );
        mail = said == "DATA" && reply.starts_with('3');
        told.lines.lock().unwrap().push(said.clone());
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return false;
        }
        if said == "STARTTLS" && reply.starts_with('2') {
            return true;
        }
    }
    false
}

pub fn mail() -> Message {
    mail_to("once", &["ann", "bob"])
}

fn mail_to(id: &str, recipients: &[&str]) -> Message {
    let mail = Message::builder().from("k@example.com".parse().unwrap());
    let mail = mail.message_id(Some(format!("<{id}@example.com>")));
    let to = recipients.iter().map(|to| format!("{to}@example.com").parse().unwrap());
    to.fold(mail, |mail, to| mail.to(to)).body("hello".to_owned()).unwrap()
}

fn clear() -> Server {
    Server { host: "mail.test".into(), port: 25, tls: false, implicit: None, login: None }
}

pub fn secret() -> Server {
    let login = Login { user: "ann".into(), pass: "s3cret".into() };
    Server { port: 587, tls: true, login: Some(login), ..clear() }
}

fn refusal(step: Step, code: i32, said: &str) -> Refusal {
    Refusal { step, recipient: None, code, permanent: code >= 500, said: said.into() }
}

fn of(recipient: &str, code: i32, said: &str) -> Refusal {
    let recipient = Some(format!("{recipient}@example.com"));
    Refusal { recipient, permanent: code >= 500 && code != 552, ..refusal(Step::Recipient, code, said) }
}

/// More than any reply, in one line that never ends.
const ENDLESS: &str = match std::str::from_utf8(&[b'2'; 1 << 20]) {
    Ok(text) => text,
    Err(_) => panic!(),
};

#[tokio::test]
async fn a_reply_without_end_is_not_waited_for() {
    for script in [
        &[("", ENDLESS)] as Script,
        &[("EHLO", ENDLESS)],
        &[("MAIL", ENDLESS)],
        &[("RCPT", ENDLESS)],
        &[(".", ENDLESS)],
    ] {
        let (told, mailer) = serve(vec![script]).await;
        for server in [clear(), secret()] {
            assert_eq!(mailer.send(&server, mail()).await, Sent::Failed("the reply is too long".into()));
        }
        assert_eq!(told.calls.load(Ordering::SeqCst), 2);
    }
}

fn to_all(reached: usize) -> Sent {
    Sent::Accepted { code: 250, reached, refused: Vec::new(), deferred: Vec::new() }
}

#[tokio::test]
async fn a_session_carries_one_mail_after_the_other() {
    let (told, mailer) = serve(vec![&[]]).await;
    for _ in 0..5 {
        assert_eq!(mailer.send(&secret(), mail()).await, to_all(2));
    }
    assert_eq!((told.calls.load(Ordering::SeqCst), told.said("AUTH PLAIN"), told.said("MAIL")), (1, 1, 5));
    // Another password is another session.
    let other = Server { login: Some(Login { user: "ann".into(), pass: "other".into() }), ..secret() };
    mailer.send(&other, mail()).await;
    assert_eq!(told.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_session_that_has_carried_enough_is_followed_by_another() {
    let (told, mailer) = serve(vec![&[("MAIL FROM:<late", "421 enough\r\n")], &[]]).await;
    let late = Message::builder().from("late@example.com".parse().unwrap());
    let late = late.to("ann@example.com".parse().unwrap()).body("hello".to_owned()).unwrap();
    assert_eq!(mailer.send(&clear(), mail()).await, to_all(2));
    assert_eq!(mailer.send(&clear(), late).await, to_all(1));
    assert_eq!(told.calls.load(Ordering::SeqCst), 2);
    // A new one that says so is a server that says so.
    let (told, mailer) = serve(vec![&[("MAIL", "421 enough\r\n")]]).await;
    assert_eq!(mailer.send(&clear(), mail()).await, Sent::Refused(refusal(Step::Sender, 421, "enough")));
    assert_eq!(told.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_conversation_that_was_broken_off_carries_no_other_mail() {
    let (told, mailer) = serve(vec![&[(".", "")], &[]]).await;
    let silent = mailer.send(&clear(), mail()).await;
    assert_eq!(silent, Sent::Failed("no answer to the mail within 500.0ms".into()));
    for _ in 0..3 {
        assert_eq!(mailer.send(&clear(), mail()).await, to_all(2));
    }
    assert_eq!(told.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn without_tls_nothing_is_said() {
    let (told, mailer) = serve(vec![&[("EHLO", "250-mail.test\r\n250 AUTH PLAIN\r\n")]]).await;
    let Sent::Failed(problem) = mailer.send(&secret(), mail()).await else { panic!("not sent") };
    assert!(problem.contains("STARTTLS"), "{problem}");
    assert_eq!((told.said("AUTH"), told.said("MAIL")), (0, 0));

    let (told, mailer) = serve(vec![&[]]).await;
    let plain = Server { login: secret().login, ..clear() };
    let problem = mailer.send(&plain, mail()).await;
    assert_eq!(problem, Sent::Failed("a password is not sent without TLS".into()));
    assert_eq!(told.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_certificate_of_another_name_is_not_believed() {
    let (told, mailer) = serve(vec![&[]]).await;
    let other = Server { host: "other.test".into(), ..secret() };
    let Sent::Failed(problem) = mailer.send(&other, mail()).await else { panic!("not sent") };
    assert!(problem.contains("certificate"), "{problem}");
    let stranger = Mailer { trust: Arc::new(Trust::read(None).unwrap()), ..mailer };
    let Sent::Failed(problem) = stranger.send(&secret(), mail()).await else { panic!("not sent") };
    assert!(problem.contains("certificate"), "{problem}");
    assert_eq!((told.said("AUTH"), told.said("MAIL")), (0, 0));
}

#[tokio::test]
async fn each_refusal_says_what_it_is_about() {
    for (script, expected) in [
        (&[("", "554 go away\r\n")] as Script, refusal(Step::Connect, 554, "go away")),
        (&[("AUTH", "535 who are you\r\n")], refusal(Step::Login, 535, "who are you")),
        (&[("MAIL", "550 not you\r\n")], refusal(Step::Sender, 550, "not you")),
        (&[("RCPT", "550 nobody\r\n")], of("ann", 550, "nobody")),
        (&[("RCPT", "451 later\r\n")], of("ann", 451, "later")),
        (&[("RCPT", "552 too many\r\n")], of("ann", 552, "too many")),
        (&[("RCPT TO:<ann", "550 nobody\r\n"), ("RCPT", "450 later\r\n")], of("bob", 450, "later")),
        (&[("RCPT TO:<bob", "421 bye\r\n")], refusal(Step::Recipient, 421, "bye")),
        (&[("DATA", "452 full\r\n")], refusal(Step::Content, 452, "full")),
        (&[(".", "554 spam\r\n")], refusal(Step::Content, 554, "spam")),
        (&[(".", "421 bye\r\n")], refusal(Step::Content, 421, "bye")),
    ] {
        let (_, mailer) = serve(vec![script]).await;
        assert_eq!(mailer.send(&secret(), mail()).await, Sent::Refused(expected));
    }
}

#[tokio::test]
async fn what_waits_too_long_is_let_go() {
    let (told, mailer) = serve(vec![&[]]).await;
    mailer.send(&clear(), mail()).await;
    tokio::time::pause();
    // Time that stands still jumps to the next thing that waits for it: the sweeper, twice at most.
    while !mailer.idle.lock().unwrap().sessions.is_empty() {
        tokio::time::advance(IDLE).await;
    }
    assert!(!mailer.idle.lock().unwrap().swept);
    assert_eq!(told.said("MAIL"), 1);
}

mod noise;
mod recipients;
