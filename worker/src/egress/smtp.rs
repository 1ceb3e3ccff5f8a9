//! Mails: over sessions with servers the guard judged, kept for the next mail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use klaxon_channel::form::{Refusal, Sent, Server, Step};
use lettre::message::header::MessageId;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::trust::Trust;
use super::{Guard, Purpose};

mod bounded;
mod reached;
mod session;

use reached::{Reached, Unfinished};
use session::{CLOSING, Security, Session, Taken, Trouble};

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
    trust: Arc<Trust>,
    /// For who is spoken to in secret from the start.
    tls: Arc<ClientConfig>,
    hello: ClientId,
    idle: Arc<Mutex<Idle>>,
    unfinished: Mutex<Unfinished>,
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
        let trust = Arc::new(Trust::read(guard.options().ca_file.as_deref())?);
        let tls = Arc::new(trust.tls()?);
        Ok(Self { guard, trust, tls, hello: hello(), idle: Arc::default(), unfinished: Mutex::default() })
    }

    /// Sends one mail to those who do not have it yet. From resolving to the last reply it takes no
    /// longer than the timeout.
    pub async fn send(&self, server: &Server, mail: Message) -> Sent {
        let limit = self.guard.options().http_timeout;
        let id = mail.headers().get::<MessageId>().map(|id| id.as_ref().to_owned());
        let known = id.as_deref().and_then(|id| self.unfinished().get(id));
        let recipients = without(mail.envelope().to(), known.as_ref());
        let mut step = Step::Connect;
        let exchange = self.exchange(server, &mail, &recipients, &mut step);
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(taken)) => self.settle(id, known, taken),
            Ok(Err(Trouble::Refused(refusal))) => Sent::Refused(refusal),
            Ok(Err(Trouble::Broken(problem))) => Sent::Failed(problem),
            Err(_) => Sent::Failed(format!("no answer to {step} within {limit:.1?}")),
        }
    }

    /// What this attempt and those before it came to; remembered while somebody waits for the mail.
    fn settle(&self, id: Option<String>, known: Option<Reached>, taken: Taken) -> Sent {
        let Taken { code, recipients, refused, deferred } = taken;
        let Some(code) = code.or(known.as_ref().map(|known| known.code)) else {
            // Nobody has it: one who may have it later is the reason to try again.
            let first = deferred.into_iter().chain(refused).next();
            return first.map_or_else(|| Sent::Failed("the mail has no recipient".into()), Sent::Refused);
        };
        let mut reached = Reached { code, ..known.unwrap_or_default() };
        reached.recipients.extend(recipients);
        reached.refused.extend(refused);
        let (count, refused) = (reached.recipients.len(), reached.refused.clone());
        if let Some(id) = id {
            let mut unfinished = self.unfinished();
            if deferred.is_empty() { unfinished.remove(&id) } else { unfinished.put(id, reached) }
        }
        Sent::Accepted { code, reached: count, refused, deferred }
    }

    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session belongs to the mail it carries, and waits for the next one only after a
    /// conversation that came to its end: one that was broken off, by a timeout too, would answer
    /// the next mail with what it had to say of this one.
    async fn exchange(
        &self,
        server: &Server,
        mail: &Message,
        recipients: &[Address],
        step: &mut Step,
    ) -> Result<Taken, Trouble> {
        let broken = |error: &dyn std::fmt::Display| Trouble::Broken(error.to_string());
        if recipients.is_empty() {
            return Ok(Taken::default());
        }
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
        loop {
            let kept = self.kept(&key).await;
            let used = kept.is_some();
            let mut session = match kept {
                Some(session) => session,
                None => self.open(server, &key, step).await?,
            };
            let taken = session.send(mail, recipients, step).await;
            match &taken {
                Ok(Taken { code: Some(_), .. }) => self.keep(key, session),
                // It has carried as many mails as the server allows.
                Err(Trouble::Refused(Refusal { step: Step::Sender, code: CLOSING, .. })) if used => continue,
                Ok(Taken { code: None, .. }) | Err(Trouble::Refused(_)) => {
                    tokio::spawn(farewell(session));
                }
                Err(Trouble::Broken(_)) => {}
            }
            return taken;
        }
    }

    async fn open(&self, server: &Server, key: &Key, step: &mut Step) -> Result<Session, Trouble> {
        let way = session::Way {
            addresses: &key.addresses,
            tls: self.security(server, key.implicit).map_err(|error| Trouble::Broken(error.to_string()))?,
            login: server.login.as_ref(),
            hello: &self.hello,
            timeout: self.guard.options().connect_timeout,
        };
        Session::open(way, step).await
    }

    fn security(&self, server: &Server, implicit: bool) -> anyhow::Result<Security> {
        let name = server.host.trim_start_matches('[').trim_end_matches([']', '.']).to_owned();
        Ok(match (server.tls, implicit) {
            (false, _) => Security::Clear,
            (true, true) => Security::Implicit(Arc::clone(&self.tls), ServerName::try_from(name)?),
            (true, false) => {
                let judged = ServerName::try_from(name.clone())?;
                // lettre knows no other verifiers than its own: ours judges before anything is said that matters.
                let parameters = TlsParameters::builder(name).dangerous_accept_invalid_certs(true);
                Security::StartTls(parameters.build_rustls()?, Arc::clone(&self.trust), judged)
            }
        })
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

/// Whom a mail is still to be sent to.
fn without(recipients: &[Address], known: Option<&Reached>) -> Vec<Address> {
    let Some(known) = known else { return recipients.to_vec() };
    let settled = |to: &&Address| {
        let name = AsRef::<str>::as_ref(*to);
        known.recipients.contains(to) || known.refused.iter().any(|it| it.recipient.as_deref() == Some(name))
    };
    recipients.iter().filter(|to| !settled(to)).cloned().collect()
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
pub mod tests;
