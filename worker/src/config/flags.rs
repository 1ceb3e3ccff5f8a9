//! The settings as flags. Text throughout: what a flag, the environment and the file say is read by
//! the same code.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// Every setting there is.
pub const KEYS: [&str; 31] = [
    "database-url",
    "secret-key-file",
    "audit-key-file",
    "checkpoint-file",
    "deployment-id",
    "concurrency",
    "per-channel",
    "http-timeout",
    "connect-timeout",
    "dns-timeout",
    "dns-ttl",
    "response-cap",
    "allow-http",
    "allow-port",
    "egress-allow",
    "connect-to",
    "ca-file",
    "smtp-host",
    "smtp-port",
    "smtp-user",
    "smtp-pass",
    "smtp-from",
    "smtp-from-name",
    "smtp-secure",
    "site-url",
    "poll-interval",
    "metrics-addr",
    "metrics-token",
    "otlp-endpoint",
    "otlp-headers",
    "log-format",
];

/// Settings given on the command line. Each is also `KLAXON_…` in the environment and a key of the
/// configuration file; flags win over the environment, which wins over the file.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Settings")]
pub struct Flags {
    /// A database to serve, as a URL or as key=value [default: libpq's environment]
    #[arg(long, global = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub database_url: Vec<String>,
    /// The private keys that open channels' secrets: 32 bytes in base64, one a line, newest first
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
    /// The keys of the audit log, in the same form
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_key_file: Option<PathBuf>,
    /// A file to which each checkpoint of the audit log is appended, a line; better elsewhere than the database
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_file: Option<PathBuf>,
    /// Which deployment's databases this worker may serve
    #[arg(long, global = true, value_name = "UUID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// Deliveries in flight, in all [default: 256]
    #[arg(long, global = true, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<String>,
    /// Deliveries in flight of one channel [default: 16]
    #[arg(long, global = true, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_channel: Option<String>,
    /// From resolving a name to the last byte read [default: 10 s]
    #[arg(long, global = true, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_timeout: Option<String>,
    /// To connect [default: 5 s]
    #[arg(long, global = true, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    /// To resolve a name [default: 5 s]
    #[arg(long, global = true, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_timeout: Option<String>,
    /// How long an answer of the DNS is believed at most [default: 30 s]
    #[arg(long, global = true, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ttl: Option<String>,
    /// How much of a response is read [default: 8 KiB]
    #[arg(long, global = true, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_cap: Option<String>,
    /// Send to http: too
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<String>,
    /// A port beside 443 and those of SMTP; repeatable
    #[arg(long, global = true, value_name = "PORT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_port: Vec<String>,
    /// An address or network to open in the egress policy, as in 10.0.0.0/8; repeatable
    #[arg(long, global = true, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<String>,
    /// Dial ADDR:PORT for HOST:PORT, as curl's --connect-to; repeatable
    #[arg(long, global = true, value_name = "HOST:PORT:ADDR:PORT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_to: Vec<String>,
    /// Certificates trusted beside the public ones, PEM
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The worker's own mail server, for email channels without one
    #[arg(long, global = true, value_name = "HOST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_host: Option<String>,
    /// 25, 465, 587 or 2525 [default: 587]
    #[arg(long, global = true, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_port: Option<String>,
    /// Who logs in there
    #[arg(long, global = true, value_name = "USER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_user: Option<String>,
    /// The password; better in the environment or the file
    #[arg(long, global = true, value_name = "PASSWORD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_pass: Option<String>,
    /// The sender's address [default: smtp-user]
    #[arg(long, global = true, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_from: Option<String>,
    /// The sender's name [default: klaxon]
    #[arg(long, global = true, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_from_name: Option<String>,
    /// TLS from the start (true) or by STARTTLS (false) [default: by the port]
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_secure: Option<String>,
    /// Base of links where a project has no url
    #[arg(long, global = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site_url: Option<String>,
    /// How often to look for work without being told [default: 1 s]
    #[arg(long, global = true, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_interval: Option<String>,
    /// Where the page, /metrics, /healthz and /readyz are served [default: 127.0.0.1:9464]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_addr: Option<String>,
    /// What the page and /metrics ask for, required beyond this host; better in the environment or the file
    #[arg(long, global = true, value_name = "TOKEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_token: Option<String>,
    /// Where spans of attempts are exported to, by OTLP over HTTP: a collector, to whose path /v1/traces is added
    #[arg(long, global = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Headers for it, as name=value,name=value; better in the environment or the file
    #[arg(long, global = true, value_name = "HEADERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_headers: Option<String>,
    /// text or json [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
}
