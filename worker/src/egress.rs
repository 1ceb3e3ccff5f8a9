//! The guard: every connection of every channel goes through here, mail included.
//!
//! A name is resolved once, every address it has is judged by [`policy`], and the connection is
//! made to the very address that was judged. Redirects, proxies and decompression do not exist.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use ipnet::IpNet;

mod http;
mod policy;
pub mod smtp;
mod trust;

pub use http::Http;
pub use smtp::Mailer;

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// Whether `http:` may be dialled.
    pub allow_http: bool,
    /// Ports beside 443 (and 80 with `allow_http`) and, for mail, 25, 465, 587 and 2525.
    pub allow_ports: Vec<u16>,
    /// Networks opened in the policy.
    pub egress_allow: Vec<IpNet>,
    /// As curl's `--connect-to`.
    pub connect_to: Vec<ConnectTo>,
    /// Certificates trusted beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// From resolving a name to the last byte read.
    pub http_timeout: Duration,
    /// To connect.
    pub connect_timeout: Duration,
    /// To resolve a name.
    pub dns_timeout: Duration,
    /// How long an answer of the DNS is believed at most.
    pub dns_ttl: Duration,
    /// Bytes read of a response.
    pub response_cap: usize,
}

/// HOST:PORT:ADDR:PORT: dial ADDR:PORT for HOST:PORT. An empty HOST or PORT is any, an empty ADDR
/// or second PORT the one asked for. It pins names: an address is dialled as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    host: String,
    port: Option<u16>,
    to_host: String,
    to_port: Option<u16>,
}

impl FromStr for ConnectTo {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("connect-to \"{text}\" is not HOST:PORT:ADDR:PORT");
        // An IPv6 address stands in brackets.
        let (mut parts, mut bracketed) = (vec![String::new()], false);
        for c in text.chars() {
            match c {
                '[' => bracketed = true,
                ']' => bracketed = false,
                ':' if !bracketed => parts.push(String::new()),
                other => parts.last_mut().expect("begins with one").push(other),
            }
        }
        let port = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        let [host, from, to, to_port] = &parts[..] else { anyhow::bail!(wrong()) };
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port: port(from).with_context(wrong)?,
            to_host: to.clone(),
            to_port: port(to_port).with_context(wrong)?,
        })
    }
}

/// Ports of mail servers, which requests never reach: what a request says there could be read as mail.
const SMTP_PORTS: [u16; 4] = [25, 465, 587, 2525];

/// What a connection is for: mail has ports of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A request.
    Https,
    /// A request in clear.
    Http,
    /// A mail.
    Smtp,
}

/// Why no connection is made. None of them names an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressError {
    /// An address the operator has not allowed.
    Policy,
    /// A port the operator has not allowed.
    Port(u16),
    /// `http:` without `allow-http`.
    Clear,
    /// The name has no address, or nobody says so in time.
    Unresolved,
}

impl fmt::Display for EgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("egress refused: target refused by policy"),
            Self::Port(port) => write!(f, "egress refused: port {port} is not allowed"),
            Self::Clear => f.write_str("egress refused: http is not allowed"),
            Self::Unresolved => f.write_str("could not resolve host"),
        }
    }
}

impl std::error::Error for EgressError {}

/// Resolves and judges.
#[derive(Debug)]
pub struct Guard {
    options: GuardOptions,
    resolver: TokioResolver,
}

impl Guard {
    /// A guard with its own cache of names, by the system's resolver configuration.
    ///
    /// # Errors
    /// Where that does not read.
    pub fn new(options: GuardOptions) -> anyhow::Result<Self> {
        let builder = TokioResolver::builder_tokio().context("the system's resolver configuration")?;
        Self::with_resolver(options, builder)
    }

    fn with_resolver(
        options: GuardOptions,
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
    ) -> anyhow::Result<Self> {
        let settings = builder.options_mut();
        settings.timeout = options.dns_timeout;
        settings.attempts = 1;
        settings.cache_size = 4096;
        // Both families, always: one that nobody asked about is one that nobody judged.
        settings.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        settings.positive_max_ttl = Some(options.dns_ttl);
        settings.negative_max_ttl = Some(options.dns_ttl);
        let resolver = builder.build().context("the resolver")?;
        Ok(Self { options, resolver })
    }

    /// What the operator allows.
    #[must_use]
    pub fn options(&self) -> &GuardOptions {
        &self.options
    }

    /// The addresses to dial for a host and port, one at least, all judged now. IPv4 comes first: a
    /// machine without a route for IPv6 is still the more common one.
    ///
    /// # Errors
    /// Where the operator has not allowed it, or the name does not resolve.
    pub async fn target(
        &self,
        host: &str,
        port: u16,
        purpose: Purpose,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        self.judge_port(port, purpose)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let (name, port) = self.pinned(bare, port);
        let mut addresses = self.resolve(&name).await?;
        if addresses.is_empty() {
            return Err(EgressError::Unresolved);
        }
        // One forbidden address among them, and the name is not to be trusted with any.
        if !addresses.iter().all(|address| policy::allows(*address, &self.options.egress_allow)) {
            return Err(EgressError::Policy);
        }
        // In an order of its own, so that a server that rotates its answers stays one target.
        addresses.sort_unstable_by_key(|address| (address.is_ipv6(), *address));
        addresses.dedup();
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// What `connect-to` makes of a name and port. An address stays what it is: who dials one never
    /// asks for another, so that mapping it here would judge what nobody dials.
    fn pinned(&self, host: String, port: u16) -> (String, u16) {
        if host.parse::<IpAddr>().is_ok() {
            return (host, port);
        }
        let name = host.strip_suffix('.').unwrap_or(&host);
        let mapped =
            self.options.connect_to.iter().find(|to| {
                (to.host.is_empty() || to.host == name) && to.port.is_none_or(|from| from == port)
            });
        match mapped {
            None => (host, port),
            Some(to) => {
                (if to.to_host.is_empty() { host } else { to.to_host.clone() }, to.to_port.unwrap_or(port))
            }
        }
    }

    fn judge_port(&self, port: u16, purpose: Purpose) -> Result<(), EgressError> {
        let added = self.options.allow_ports.contains(&port);
        let allowed = match purpose {
            Purpose::Http if !self.options.allow_http => return Err(EgressError::Clear),
            Purpose::Smtp => SMTP_PORTS.contains(&port) || added,
            Purpose::Http | Purpose::Https if SMTP_PORTS.contains(&port) => false,
            Purpose::Http => [80, 443].contains(&port) || added,
            Purpose::Https => port == 443 || added,
        };
        if allowed { Ok(()) } else { Err(EgressError::Port(port)) }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, EgressError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        // A final dot keeps the system's search domains out.
        let absolute =
            if name.ends_with('.') || !name.contains('.') { name.to_owned() } else { format!("{name}.") };
        // Apart, as it is large, and most of the time not needed.
        let lookup = Box::pin(self.resolver.lookup_ip(absolute.as_str()));
        match tokio::time::timeout(self.options.dns_timeout, lookup).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            _ => Err(EgressError::Unresolved),
        }
    }
}

#[cfg(test)]
mod resolve_tests;
#[cfg(test)]
pub mod tests;
#[cfg(test)]
mod trust_tests;
#[cfg(test)]
mod url_tests;
