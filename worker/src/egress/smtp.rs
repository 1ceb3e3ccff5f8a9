//! Mails: over sessions with servers the guard judged, kept for the next mail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use klaxon_channel::form::{Sent, Server, Step};
use lettre::Message;
use lettre::transport::smtp::client::{Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::{Guard, Purpose};

mod session;

use session::{Session, Trouble};

/// Servers whose sessions are kept.
const SERVERS: usize = 64;
/// Sessions kept of one server.
const SESSIONS: usize = 16;
/// How long a session is kept that nobody uses, at least; at most twice as long.
const IDLE: Duration = Duration::from_secs(30);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whose session it is: another address, user or password is another session.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    addresses: Vec<SocketAddr>,
    tls: bool,
    implicit: bool,
    login: Option<(String, [u8; 32])>,
}

/// Sessions that wait for the next mail.
#[derive(Default)]
struct Idle {
    sessions: HashMap<Key, Vec<(Session, Instant)>>,
    swept: bool,
}

/// Sends mails over sessions that are kept.
pub struct Mailer {
    guard: Arc<Guard>,
    roots: Vec<Certificate>,
    hello: ClientId,
    idle: Arc<Mutex<Idle>>,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").finish_non_exhaustive()
    }
}

impl Mailer {
    /// Trusts the public roots and the operator's.
    ///
    /// # Errors
    /// Where the operator's file does not read.
    pub fn new(guard: Arc<Guard>) -> anyhow::Result<Self> {
        let mut roots = Vec::new();
        if let Some(path) = &guard.options().ca_file {
            let pem = std::fs::read(path).with_context(|| format!("ca-file {}", path.display()))?;
            roots.push(Certificate::from_pem(&pem).with_context(|| format!("ca-file {}", path.display()))?);
        }
        Ok(Self { guard, roots, hello: hello(), idle: Arc::default() })
    }

    /// Sends one mail. From resolving to the last reply it takes no longer than the timeout.
    pub async fn send(&self, server: &Server, mail: Message) -> Sent {
        let limit = self.guard.options().http_timeout;
        let mut step = Step::Connect;
        match tokio::time::timeout(limit, self.exchange(server, &mail, &mut step)).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(Trouble::Refused(refusal))) => Sent::Refused(refusal),
            Ok(Err(Trouble::Broken(problem))) => Sent::Failed(problem),
            Err(_) => Sent::Failed(format!("no answer to {step} within {limit:.1?}")),
        }
    }

    /// A session belongs to the mail it carries, and waits for the next one only after a
    /// conversation that came to its end: one that was broken off, by a timeout too, would answer
    /// the next mail with what it had to say of this one.
    async fn exchange(&self, server: &Server, mail: &Message, step: &mut Step) -> Result<Sent, Trouble> {
        let broken = |error: &dyn std::fmt::Display| Trouble::Broken(error.to_string());
        if server.login.is_some() && !server.tls {
            return Err(Trouble::Broken("a password is not sent without TLS".into()));
        }
        let addresses = self
            .guard
            .target(&server.host, server.port, Purpose::Smtp)
            .await
            .map_err(|error| broken(&error))?;
        let key = Key {
            host: server.host.to_ascii_lowercase(),
            tls: server.tls,
            implicit: server.implicit.unwrap_or(server.port == 465),
            login: server.login.as_ref().map(|login| {
                (login.user.clone(), klaxon_model::audit::body_hash(login.pass.expose_secret()))
            }),
            addresses,
        };
        let mut session = match self.kept(&key).await {
            Some(session) => session,
            None => {
                let tls = server.tls.then(|| self.tls(&server.host)).transpose();
                let way = session::Way {
                    addresses: &key.addresses,
                    tls: tls.map_err(|error| broken(&error))?,
                    implicit: key.implicit,
                    login: server.login.as_ref(),
                    hello: &self.hello,
                    timeout: self.guard.options().connect_timeout,
                };
                Session::open(way, step).await?
            }
        };
        let sent = session.send(mail, step).await;
        match sent {
            Ok(_) => self.keep(key, session),
            Err(Trouble::Refused(_)) => drop(tokio::spawn(farewell(session))),
            Err(Trouble::Broken(_)) => {}
        }
        sent
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, lettre::transport::smtp::Error> {
        let name = host.trim_start_matches('[').trim_end_matches([']', '.']);
        let roots = self.roots.iter().cloned();
        roots
            .fold(TlsParameters::builder(name.to_owned()), |builder, root| builder.add_root_certificate(root))
            .build_rustls()
    }

    /// A session that waited and still answers.
    async fn kept(&self, key: &Key) -> Option<Session> {
        loop {
            let (mut session, since) = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.sessions.get_mut(key)?.pop()?
            };
            if since.elapsed() < IDLE && session.answers().await {
                return Some(session);
            }
        }
    }

    fn keep(&self, key: Key, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.sessions.len() >= SERVERS && !idle.sessions.contains_key(&key) {
            return;
        }
        let waiting = idle.sessions.entry(key).or_default();
        if waiting.len() < SESSIONS {
            waiting.push((session, Instant::now()));
        }
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.idle)));
        }
    }
}

/// Says goodbye to what waited too long, until nothing waits.
async fn sweep(idle: Weak<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(idle) = idle.upgrade() else { return };
        let (old, empty) = {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            let mut old = Vec::new();
            idle.sessions.retain(|_, waiting| {
                old.extend(waiting.extract_if(.., |(_, since)| since.elapsed() >= IDLE));
                !waiting.is_empty()
            });
            idle.swept = !idle.sessions.is_empty();
            (old, idle.sessions.is_empty())
        };
        for (session, _) in old {
            farewell(session).await;
        }
        if empty {
            return;
        }
    }
}

/// Who does not answer in time is left without a word.
async fn farewell(session: Session) {
    let _ = tokio::time::timeout(FAREWELL, session.quit()).await;
}

/// The name this machine goes by, or an address where it has none that others could look up (RFC
/// 5321 section 4.1.4).
fn hello() -> ClientId {
    hostname::get()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| {
            name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        })
        .map_or(ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST), ClientId::Domain)
}

#[cfg(test)]
mod tests;
