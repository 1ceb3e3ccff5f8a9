//! One conversation with a mail server (RFC 5321), step by step: which step a refusal belongs to
//! says whether it is about the login, a recipient or the mail.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use klaxon_channel::form::{Login, Refusal, Step};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use lettre::{Address, Message};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::trust::Trust;
use super::bounded::{Bounded, Grant};

/// The reply of a server that ends the conversation, to whatever it was said (RFC 5321 section 3.8).
pub(super) const CLOSING: i32 = 421;

/// Why a mail was not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server said no.
    Refused(Refusal),
    /// The conversation broke off.
    Broken(String),
}

/// What comes of a greeting: lettre panics at a line of nothing but spaces in the reply to EHLO.
async fn readable<T>(greeting: impl Future<Output = T>) -> Result<T, Trouble> {
    let said = AssertUnwindSafe(greeting).catch_unwind().await;
    said.map_err(|_| Trouble::Broken("the mail server's greeting does not read".into()))
}

/// For whom a mail was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The reply to the mail; without one it was taken for nobody, and the session is in the middle
    /// of it.
    pub(super) code: Option<i32>,
    /// Who has it now.
    pub(super) recipients: Vec<Address>,
    /// Who was refused for good.
    pub(super) refused: Vec<Refusal>,
    /// Who was refused for now.
    pub(super) deferred: Vec<Refusal>,
}

impl Trouble {
    fn of(error: &Error, step: Step) -> Self {
        match error.status() {
            Some(code) => {
                let code = u16::from(code).into();
                Self::Refused(Refusal {
                    step,
                    recipient: None,
                    code,
                    permanent: error.is_permanent() && (step, code) != (Step::Recipient, 552),
                    said: innermost(error),
                })
            }
            None => Self::Broken(innermost(error)),
        }
    }
}

/// When a conversation becomes secret, and how.
pub(super) enum Security {
    /// Never.
    Clear,
    /// Once both have said so, if the certificate for that name is believed.
    StartTls(TlsParameters, Arc<Trust>, ServerName<'static>),
    /// From the start.
    Implicit(Arc<ClientConfig>, ServerName<'static>),
}

/// How to reach a server.
pub(super) struct Way<'a> {
    /// Judged addresses, tried in order.
    pub(super) addresses: &'a [SocketAddr],
    /// How it is made secret.
    pub(super) tls: Security,
    /// Who logs in.
    pub(super) login: Option<&'a Login>,
    /// Who calls.
    pub(super) hello: &'a ClientId,
    /// To connect to one address.
    pub(super) timeout: Duration,
}

/// A session that can carry mails, one after the other.
pub(super) struct Session {
    connection: AsyncSmtpConnection,
    grant: Grant,
}

impl Session {
    /// Connects, insists on TLS where it was asked for, and logs in.
    pub(super) async fn open(way: Way<'_>, step: &mut Step) -> Result<Self, Trouble> {
        let Way { addresses, tls, login, hello, timeout } = way;
        *step = Step::Connect;
        let broken = |error: std::io::Error| Trouble::Broken(innermost(&error));
        let (stream, peer) = dial(addresses, timeout).await.map_err(broken)?;
        let grant = Grant::new();
        let stream = Bounded::new(stream, peer, grant.clone());
        let mut secret = false;
        let stream: Box<dyn AsyncTokioStream> = match &tls {
            Security::Implicit(config, name) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(broken)?;
                secret = true;
                Box::new(Bounded::new(stream, peer, grant.clone()))
            }
            _ => Box::new(stream),
        };
        let greeting = AsyncSmtpConnection::connect_with_transport(stream, hello);
        let mut connection = readable(greeting).await?.map_err(|error| Trouble::of(&error, *step))?;
        if let Security::StartTls(tls, trust, name) = tls {
            let again = connection.starttls(tls, hello);
            readable(again).await?.map_err(|error| Trouble::of(&error, *step))?;
            let shown = connection.certificate_chain().map_err(|error| Trouble::of(&error, *step))?;
            let shown: Vec<_> = shown.into_iter().map(CertificateDer::from).collect();
            trust.judge(&shown, &name).map_err(|error| Trouble::Broken(error.to_string()))?;
            secret = connection.is_encrypted();
        }
        if let Some(login) = login {
            *step = Step::Login;
            if !secret {
                return Err(Trouble::Broken("a password is not sent without TLS".into()));
            }
            let credentials = Credentials::new(login.user.clone(), login.pass.expose_secret().to_owned());
            connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await
                .map_err(|error| Trouble::of(&error, *step))?;
        }
        Ok(Self { connection, grant })
    }

    /// Hands over one mail to these recipients. One who is refused does not keep it from the others.
    pub(super) async fn send(
        &mut self,
        mail: &Message,
        recipients: &[Address],
        step: &mut Step,
    ) -> Result<Taken, Trouble> {
        let content = mail.formatted();
        let sender = mail.envelope().from();
        *step = Step::Sender;
        let mut parameters = Vec::new();
        let ascii = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
        if !recipients.iter().chain(sender).all(ascii) {
            parameters.push(self.offered(Extension::SmtpUtfEight, MailParameter::SmtpUtfEight)?);
        }
        if !content.is_ascii() {
            let body = MailParameter::Body(MailBodyParameter::EightBitMime);
            parameters.push(self.offered(Extension::EightBitMime, body)?);
        }
        self.say(Mail::new(sender.cloned(), parameters), *step).await?;
        *step = Step::Recipient;
        let mut taken = Taken::default();
        for to in recipients {
            match self.say(Rcpt::new(to.clone(), Vec::new()), *step).await {
                Ok(_) => taken.recipients.push(to.clone()),
                Err(Trouble::Refused(refusal)) if refusal.code != CLOSING => {
                    let whose = if refusal.permanent { &mut taken.refused } else { &mut taken.deferred };
                    whose.push(Refusal { recipient: Some(to.to_string()), ..refusal });
                }
                Err(trouble) => return Err(trouble),
            }
        }
        if !taken.recipients.is_empty() {
            *step = Step::Content;
            self.say(Data, *step).await?;
            self.grant.renew();
            let reply = self.connection.message(&content).await;
            let reply = reply.map_err(|error| Trouble::of(&error, *step))?;
            taken.code = Some(u16::from(reply.code()).into());
        }
        Ok(taken)
    }

    /// Whether the server is still there. A RSET between two mails is nothing to any server, whereas
    /// exim hangs up on who says NOOP ten times.
    pub(super) async fn answers(&mut self) -> bool {
        self.grant.renew();
        self.connection.command(Rset).await.is_ok()
    }

    /// Says goodbye.
    pub(super) async fn quit(mut self) {
        self.connection.abort().await;
    }

    fn offered(&self, extension: Extension, parameter: MailParameter) -> Result<MailParameter, Trouble> {
        if self.connection.server_info().supports_feature(extension) {
            return Ok(parameter);
        }
        Err(Trouble::Broken(format!("the server does not offer {extension}, which the mail needs")))
    }

    async fn say(&mut self, command: impl fmt::Display, step: Step) -> Result<Response, Trouble> {
        self.grant.renew();
        let reply = self.connection.command(command).await;
        reply.map_err(|error| Trouble::of(&error, step))
    }
}

/// Each address has its share of the time, so that one that does not answer leaves some to the others.
async fn dial(addresses: &[SocketAddr], limit: Duration) -> std::io::Result<(TcpStream, SocketAddr)> {
    let mut failed = std::io::Error::other("no address");
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A mail and the dot that ends it are two writes: the second would wait for the first one's
                // acknowledgement, which a server delays by 40 ms.
                stream.set_nodelay(true)?;
                return Ok((stream, *address));
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = std::io::Error::other("connection timed out"),
        }
    }
    Err(failed)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::dial;

    #[tokio::test]
    async fn a_write_does_not_wait_for_the_one_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, reached) = dial(&[address], Duration::from_secs(5)).await.unwrap();
        assert!(reached == address && stream.nodelay().unwrap());
    }
}
