//! Mails: sessions with servers the guard judged.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Guard, Purpose};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Servers whose sessions are kept.
const SERVERS: usize = 64;

/// A mail server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name: what its certificate must say.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is required.
    pub tls: bool,
    /// TLS from the start rather than by STARTTLS; by the port (465) where it is absent.
    pub implicit: Option<bool>,
    /// Who logs in.
    pub login: Option<Login>,
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub pass: SecretString,
}

/// What the server said of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It took it, with this code.
    Accepted(i32),
    /// It did not, with this code, for good (5xx) or for now.
    Refused {
        /// SMTP reply code.
        code: i32,
        /// Whether it will always say so.
        permanent: bool,
        /// What it said.
        said: String,
    },
    /// There was no answer: what failed, without an address.
    Failed(String),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Session {
    host: String,
    address: SocketAddr,
    tls: bool,
    user: Option<String>,
    /// A changed password is another session.
    pass: Option<[u8; 32]>,
}

/// Sends mails over sessions that are kept.
pub struct Mailer {
    guard: Arc<Guard>,
    roots: Vec<Certificate>,
    sessions: Mutex<HashMap<Session, (Transport, Instant)>>,
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
        Ok(Self { guard, roots, sessions: Mutex::default() })
    }

    /// Sends one mail.
    pub async fn send(&self, server: &Server, mail: Message) -> Sent {
        let limit = self.guard.options().http_timeout;
        match tokio::time::timeout(limit, self.exchange(server, mail)).await {
            Ok(sent) => sent,
            Err(_) => Sent::Failed(format!("no answer within {limit:.1?}")),
        }
    }

    async fn exchange(&self, server: &Server, mail: Message) -> Sent {
        let address = match self.guard.target(&server.host, server.port, Purpose::Smtp).await {
            Ok(address) => address,
            Err(error) => return Sent::Failed(error.to_string()),
        };
        let transport = match self.transport(server, address) {
            Ok(transport) => transport,
            Err(error) => return Sent::Failed(format!("{error:#}")),
        };
        match transport.send(mail).await {
            Ok(response) => Sent::Accepted(code(u16::from(response.code()))),
            Err(error) => match error.status() {
                Some(status) => Sent::Refused {
                    code: code(u16::from(status)),
                    permanent: error.is_permanent(),
                    said: innermost(&error),
                },
                None => Sent::Failed(innermost(&error)),
            },
        }
    }

    fn transport(&self, server: &Server, address: SocketAddr) -> anyhow::Result<Transport> {
        let session = Session {
            host: server.host.to_ascii_lowercase(),
            address,
            tls: server.tls,
            user: server.login.as_ref().map(|login| login.user.clone()),
            pass: server
                .login
                .as_ref()
                .map(|login| klaxon_model::audit::body_hash(login.pass.expose_secret())),
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((transport, used)) = sessions.get_mut(&session) {
            *used = now;
            return Ok(transport.clone());
        }
        if sessions.len() >= SERVERS
            && let Some(oldest) =
                sessions.iter().min_by_key(|(_, (_, used))| *used).map(|(session, _)| session.clone())
        {
            sessions.remove(&oldest);
        }
        let transport = self.build(server, address)?;
        sessions.insert(session, (transport.clone(), now));
        Ok(transport)
    }

    /// Dials the judged address; TLS is checked against the server's name.
    fn build(&self, server: &Server, address: SocketAddr) -> anyhow::Result<Transport> {
        let options = self.guard.options();
        let tls = if server.tls {
            let mut parameters = TlsParameters::builder(server.host.clone());
            for root in &self.roots {
                parameters = parameters.add_root_certificate(root.clone());
            }
            let parameters = parameters.build_rustls().context("TLS")?;
            if server.implicit.unwrap_or(server.port == 465) {
                Tls::Wrapper(parameters)
            } else {
                Tls::Required(parameters)
            }
        } else {
            Tls::None
        };
        let mut builder = Transport::builder_dangerous(address.ip().to_string())
            .port(address.port())
            .hello_name(ClientId::Domain("klaxon.invalid".into()))
            .timeout(Some(options.http_timeout))
            .tls(tls)
            .pool_config(PoolConfig::new().max_size(16).idle_timeout(Duration::from_secs(30)));
        if let Some(login) = &server.login {
            // Without TLS no password is sent, whatever a configuration says.
            anyhow::ensure!(server.tls, "a password is not sent without TLS");
            builder = builder
                .credentials(Credentials::new(login.user.clone(), login.pass.expose_secret().to_owned()))
                .authentication(vec![Mechanism::Plain, Mechanism::Login]);
        }
        Ok(builder.build())
    }
}

fn code(code: u16) -> i32 {
    code.into()
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
