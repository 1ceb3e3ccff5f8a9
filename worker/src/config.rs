//! Settings: flags over the environment over the configuration file over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Format as _, Toml};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::egress::ConnectTo;
use crate::trace;

mod flags;
mod source;
mod value;

pub use flags::Flags;

use source::Source;

/// Where the configuration is looked for when no flag says.
pub const DEFAULT_PATHS: [&str; 2] = ["klaxon.toml", "/etc/klaxon/klaxon.toml"];

/// Fewer could be guessed.
const TOKEN_LENGTH: usize = 16;

/// Every setting of the worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Databases to serve; none is libpq's environment.
    #[serde(default, deserialize_with = "value::secrets")]
    pub database_url: Vec<SecretString>,
    /// The private keys that open channels' secrets.
    pub secret_key_file: Option<PathBuf>,
    /// The keys of the audit log.
    pub audit_key_file: Option<PathBuf>,
    /// Where checkpoints of the audit log are kept outside of it.
    pub checkpoint_file: Option<PathBuf>,
    /// Which deployment's databases this worker may serve.
    pub deployment_id: Option<String>,
    /// Deliveries in flight, 1 to 10,000.
    #[serde(deserialize_with = "value::number")]
    pub concurrency: usize,
    /// Deliveries in flight of one channel, 1 to `concurrency`.
    #[serde(deserialize_with = "value::number")]
    pub per_channel: usize,
    /// From resolving a name to the last byte read.
    #[serde(deserialize_with = "value::duration")]
    pub http_timeout: Duration,
    /// To connect.
    #[serde(deserialize_with = "value::duration")]
    pub connect_timeout: Duration,
    /// To resolve a name.
    #[serde(deserialize_with = "value::duration")]
    pub dns_timeout: Duration,
    /// How long an answer of the DNS is believed at most.
    #[serde(deserialize_with = "value::duration")]
    pub dns_ttl: Duration,
    /// Bytes read of a response.
    #[serde(deserialize_with = "value::bytes")]
    pub response_cap: usize,
    /// Whether `http:` may be sent to.
    #[serde(deserialize_with = "value::flag")]
    pub allow_http: bool,
    /// Ports beside 443 and those of SMTP.
    #[serde(default, deserialize_with = "value::list")]
    pub allow_port: Vec<u16>,
    /// Networks opened in the egress policy.
    #[serde(default, deserialize_with = "value::networks")]
    pub egress_allow: Vec<IpNet>,
    /// As curl's `--connect-to`.
    #[serde(default, deserialize_with = "value::list")]
    pub connect_to: Vec<String>,
    /// Certificates trusted beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// The worker's own mail server.
    pub smtp_host: Option<String>,
    /// 25, 465, 587 or 2525.
    #[serde(deserialize_with = "value::number")]
    pub smtp_port: u16,
    /// Who logs in there.
    pub smtp_user: Option<String>,
    /// The password.
    #[serde(default, deserialize_with = "value::secret")]
    pub smtp_pass: Option<SecretString>,
    /// The sender's address; `smtp-user` where it is absent.
    pub smtp_from: Option<String>,
    /// The sender's name.
    pub smtp_from_name: String,
    /// True: TLS from the start; false: STARTTLS; absent: by the port.
    #[serde(default, deserialize_with = "value::optional_flag")]
    pub smtp_secure: Option<bool>,
    /// Base of links where a project has no url.
    pub site_url: Option<String>,
    /// How often to look for work without being told.
    #[serde(deserialize_with = "value::duration")]
    pub poll_interval: Duration,
    /// Where the page, `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics_addr: SocketAddr,
    /// What the page and `/metrics` ask for; required where others than this host can reach them.
    #[serde(default, deserialize_with = "value::secret")]
    pub metrics_token: Option<SecretString>,
    /// Where spans are exported to, by OTLP over HTTP.
    #[serde(default, deserialize_with = "value::url")]
    pub otlp_endpoint: Option<Url>,
    /// Headers for that, `name=value,name=value`.
    #[serde(default, deserialize_with = "value::secret")]
    pub otlp_headers: Option<SecretString>,
    /// `text` or `json`; absent: text on a terminal.
    pub log_format: Option<LogFormat>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

const DEFAULTS: &str = r#"
concurrency = 256
per-channel = 16
http-timeout = "10 s"
connect-timeout = "5 s"
dns-timeout = "5 s"
dns-ttl = "30 s"
response-cap = "8 KiB"
allow-http = false
smtp-port = 587
smtp-from-name = "klaxon"
poll-interval = "1 s"
metrics-addr = "127.0.0.1:9464"
"#;

impl Settings {
    /// Reads the settings. `config` is the file a flag named; without one the default places are
    /// tried and may all be absent.
    ///
    /// # Errors
    /// A file that does not read, a key that is unknown, a value out of bounds: named.
    pub fn load(config: Option<&Path>, flags: &Flags) -> anyhow::Result<Self> {
        let file = match config {
            Some(path) => {
                // A missing file is an error here; figment would take it for an empty one.
                std::fs::metadata(path).with_context(|| {
                    format!(
                        "cannot read {}; \"klaxon init --config {}\" writes it",
                        path.display(),
                        path.display()
                    )
                })?;
                Some(path.to_owned())
            }
            None => DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.exists()),
        };
        Self::read(file.as_deref(), std::env::vars(), flags)
    }

    /// Reads the settings of flags and environment alone, for what writes the file.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_without_file(flags: &Flags) -> anyhow::Result<Self> {
        Self::read(None, std::env::vars(), flags)
    }

    fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> anyhow::Result<Self> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = file {
            figment = figment.merge(Source::file(path)?);
        }
        let settings: Self = figment
            .merge(Source::environment(variables))
            .merge(Source::flags(flags)?)
            .extract()
            .map_err(|error| source::explain(&error))?;
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> anyhow::Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64, unit: &str| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            bail!("{name} must be {low} to {high}{unit}, not {value}")
        };
        within("concurrency", self.concurrency as f64, 1.0, 10_000.0, "")?;
        within("per-channel", self.per_channel as f64, 1.0, self.concurrency as f64, " (concurrency)")?;
        within("http-timeout", self.http_timeout.as_secs_f64(), 0.1, 300.0, " s")?;
        within("connect-timeout", self.connect_timeout.as_secs_f64(), 0.1, 300.0, " s")?;
        within("dns-timeout", self.dns_timeout.as_secs_f64(), 0.1, 60.0, " s")?;
        within("dns-ttl", self.dns_ttl.as_secs_f64(), 0.0, 3600.0, " s")?;
        within("poll-interval", self.poll_interval.as_secs_f64(), 0.05, 60.0, " s")?;
        within("response-cap", self.response_cap as f64, 0.0, 8192.0, " bytes")?;
        if ![25, 465, 587, 2525].contains(&self.smtp_port) {
            bail!("smtp-port must be 25, 465, 587 or 2525, not {}", self.smtp_port);
        }
        if self.smtp_pass.is_some() && self.smtp_user.is_none() {
            bail!("smtp-user is required with smtp-pass");
        }
        match &self.metrics_token {
            Some(token) if token.expose_secret().len() < TOKEN_LENGTH => {
                bail!("metrics-token must have {TOKEN_LENGTH} characters at least")
            }
            None if !self.metrics_addr.ip().is_loopback() => bail!(
                "metrics-addr {} can be reached from other hosts: set metrics-token, or bind to 127.0.0.1",
                self.metrics_addr
            ),
            _ => {}
        }
        if let Some(id) = &self.deployment_id {
            Uuid::try_parse(id).with_context(|| format!("deployment-id \"{id}\" is no UUID"))?;
        }
        for pin in &self.connect_to {
            pin.parse::<ConnectTo>()?;
        }
        if let Some(headers) = &self.otlp_headers {
            trace::headers(headers.expose_secret())?;
        }
        if let Some(url) = &self.site_url {
            let url = url::Url::parse(url).with_context(|| format!("site-url \"{url}\" is no URL"))?;
            if !["http", "https"].contains(&url.scheme()) {
                bail!("site-url must be http or https");
            }
        }
        Ok(())
    }

    /// The settings as `klaxon.worker` shows them: secrets masked.
    #[must_use]
    pub fn masked(&self) -> serde_json::Value {
        let mask = |present: bool| present.then_some(klaxon_channel::config::MASK);
        serde_json::json!({
            "concurrency": self.concurrency,
            "per-channel": self.per_channel,
            "http-timeout": self.http_timeout.as_secs_f64(),
            "connect-timeout": self.connect_timeout.as_secs_f64(),
            "dns-timeout": self.dns_timeout.as_secs_f64(),
            "dns-ttl": self.dns_ttl.as_secs_f64(),
            "response-cap": self.response_cap,
            "allow-http": self.allow_http,
            "allow-port": self.allow_port,
            "egress-allow": self.egress_allow,
            "connect-to": self.connect_to,
            "ca-file": self.ca_file,
            "checkpoint-file": self.checkpoint_file,
            "smtp-host": self.smtp_host,
            "smtp-port": self.smtp_port,
            "smtp-user": self.smtp_user,
            "smtp-pass": mask(self.smtp_pass.is_some()),
            "smtp-from": self.smtp_from,
            "smtp-from-name": self.smtp_from_name,
            "smtp-secure": self.smtp_secure,
            "site-url": self.site_url,
            "poll-interval": self.poll_interval.as_secs_f64(),
            "metrics-addr": self.metrics_addr.to_string(),
            "metrics-token": mask(self.metrics_token.is_some()),
            // No more of it: some collectors have a key in their path.
            "otlp-endpoint": self.otlp_endpoint.as_ref().map(|url| url.origin().ascii_serialization()),
            "otlp-headers": mask(self.otlp_headers.is_some()),
        })
    }
}

#[cfg(test)]
mod tests;
