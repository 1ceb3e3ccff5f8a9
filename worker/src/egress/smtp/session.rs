//! One conversation with a mail server (RFC 5321), step by step: which step a refusal belongs to
//! says whether it is about the login, a recipient or the mail.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use klaxon_channel::form::{Login, Refusal, Sent, Step};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use lettre::{Address, Message};
use secrecy::ExposeSecret as _;

/// Why a mail was not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server said no.
    Refused(Refusal),
    /// The conversation broke off.
    Broken(String),
}

impl Trouble {
    fn of(error: &Error, step: Step) -> Self {
        match error.status() {
            Some(code) => Self::Refused(Refusal {
                step,
                code: u16::from(code).into(),
                permanent: error.is_permanent(),
                said: innermost(error),
            }),
            None => Self::Broken(innermost(error)),
        }
    }
}

/// How to reach a server.
pub(super) struct Way<'a> {
    /// Judged addresses, tried in order.
    pub(super) addresses: &'a [SocketAddr],
    /// TLS with the server's name; `None` is plaintext.
    pub(super) tls: Option<TlsParameters>,
    /// TLS from the start.
    pub(super) implicit: bool,
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
}

impl Session {
    /// Connects, insists on TLS where it was asked for, and logs in.
    pub(super) async fn open(way: Way<'_>, step: &mut Step) -> Result<Self, Trouble> {
        let Way { addresses, tls, implicit, login, hello, timeout } = way;
        *step = Step::Connect;
        let (early, late) = if implicit { (tls, None) } else { (None, tls) };
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(addresses, Some(timeout), hello, early, None)
                .await
                .map_err(|error| Trouble::of(&error, *step))?;
        if let Some(tls) = late {
            connection.starttls(tls, hello).await.map_err(|error| Trouble::of(&error, *step))?;
        }
        if let Some(login) = login {
            *step = Step::Login;
            if !connection.is_encrypted() {
                return Err(Trouble::Broken("a password is not sent without TLS".into()));
            }
            let credentials = Credentials::new(login.user.clone(), login.pass.expose_secret().to_owned());
            connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await
                .map_err(|error| Trouble::of(&error, *step))?;
        }
        Ok(Self { connection })
    }

    /// Hands over one mail.
    ///
    /// A recipient refused for good does not keep the mail from the others. One refused for now
    /// does: trying again later would send it twice to those who have it.
    pub(super) async fn send(&mut self, mail: &Message, step: &mut Step) -> Result<Sent, Trouble> {
        let (envelope, content) = (mail.envelope(), mail.formatted());
        *step = Step::Sender;
        let mut parameters = Vec::new();
        let ascii = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
        if !envelope.to().iter().chain(envelope.from()).all(ascii) {
            parameters.push(self.offered(Extension::SmtpUtfEight, MailParameter::SmtpUtfEight)?);
        }
        if !content.is_ascii() {
            let body = MailParameter::Body(MailBodyParameter::EightBitMime);
            parameters.push(self.offered(Extension::EightBitMime, body)?);
        }
        self.say(Mail::new(envelope.from().cloned(), parameters), *step).await?;
        *step = Step::Recipient;
        let mut refused = Vec::new();
        for to in envelope.to() {
            match self.say(Rcpt::new(to.clone(), Vec::new()), *step).await {
                Ok(_) => {}
                Err(Trouble::Refused(refusal)) if refusal.permanent => refused.push(refusal),
                Err(trouble) => return Err(trouble),
            }
        }
        if refused.len() == envelope.to().len()
            && let Some(refusal) = refused.pop()
        {
            return Err(Trouble::Refused(refusal));
        }
        *step = Step::Content;
        self.say(Data, *step).await?;
        let reply = self.connection.message(&content).await;
        let reply = reply.map_err(|error| Trouble::of(&error, *step))?;
        Ok(Sent::Accepted { code: u16::from(reply.code()).into(), refused })
    }

    /// Whether the server is still there.
    pub(super) async fn answers(&mut self) -> bool {
        self.connection.test_connected().await
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
        let reply = self.connection.command(command).await;
        reply.map_err(|error| Trouble::of(&error, step))
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
