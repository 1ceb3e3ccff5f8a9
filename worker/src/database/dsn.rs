//! Connection strings and libpq's environment.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, bail};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use url::Url;

use super::{standard, tls};

/// Where libpq looks for a socket, as Debian builds it.
const SOCKETS: &str = "/var/run/postgresql";
/// What libpq knows and is not known here: named, where another word could be a password's part.
const UNKNOWN: [&str; 14] = [
    "service",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "gssencmode",
    "krbsrvname",
    "client_encoding",
    "fallback_application_name",
    "keepalives_count",
    "replication",
];

/// What is ours to read: tokio-postgres knows less of it than libpq, or nothing.
#[derive(Debug, Default)]
struct Ours {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    passfile: Option<String>,
}

impl Ours {
    /// Takes a parameter, and says whether it was one of these.
    fn take(&mut self, key: &str, value: &str) -> anyhow::Result<bool> {
        if UNKNOWN.contains(&key) {
            bail!("database-url: {key} is not known here");
        }
        let field = match key {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "passfile" => &mut self.passfile,
            _ => return Ok(false),
        };
        *field = Some(value.to_owned());
        Ok(true)
    }
}

/// Reads a URL or a key=value string, `environment` filling what it leaves out.
///
/// # Errors
/// Where it does not read; the message never repeats what may be a password.
pub fn parse(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<(Config, tls::Mode)> {
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let (rest, ours) = take_ours(text)?;
    // The error may repeat what it could not read, which may be a password.
    let mut config: Config = rest
        .parse()
        .map_err(|_| anyhow::anyhow!("database-url does not read as a Postgres URL or key=value string"))?;
    fill(&mut config, ours.passfile, &environment)?;
    let sslmode = ours.sslmode.or_else(|| environment("PGSSLMODE"));
    let mut root = ours.sslrootcert.or_else(|| environment("PGSSLROOTCERT"));
    if root.is_none() {
        // libpq's own place; where nothing is there, the public roots are asked.
        root = environment("HOME")
            .map(|home| format!("{home}/.postgresql/root.crt"))
            .filter(|path| std::fs::exists(path).unwrap_or(false));
    }
    let mode = tls::Mode::parse(sslmode.as_deref().unwrap_or("prefer"), root)?;
    standard(&mut config);
    // A socket of the file system never speaks TLS.
    let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    Ok((config, if local { tls::Mode::Disabled } else { mode }))
}

/// Splits the text into what tokio-postgres reads and what is ours.
fn take_ours(text: &str) -> anyhow::Result<(String, Ours)> {
    let mut ours = Ours::default();
    let mut rest = String::new();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        for (key, value) in pairs(text)? {
            if !ours.take(&key, &value)? {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                rest.push_str(&format!("{key}='{value}' "));
            }
        }
        return Ok((rest, ours));
    }
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    rest.push_str(base);
    let mut separator = '?';
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !ours.take(key, &decoded(value))? {
            rest.push(separator);
            rest.push_str(pair);
            separator = '&';
        }
    }
    Ok((rest, ours))
}

/// Without `%` escapes. A plus is a plus here, unlike in a form.
fn decoded(value: &str) -> String {
    Url::parse(&format!("x:?v={}", value.replace('+', "%2B")))
        .ok()
        .and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()))
        .unwrap_or_default()
}

/// The pairs of a key=value string, read as libpq reads them: space around `=` and between pairs,
/// values in single quotes, a backslash before what is meant as it stands.
fn pairs(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        let Some(value) = rest[end..].trim_start().strip_prefix('=') else {
            bail!("database-url does not read: a \"=\" is missing");
        };
        let value = value.trim_start();
        let (quoted, value) = value.strip_prefix('\'').map_or((false, value), |value| (true, value));
        let mut read = String::new();
        let mut chars = value.chars();
        let closed = loop {
            match chars.next() {
                Some('\\') => read.extend(chars.next()),
                Some('\'') if quoted => break true,
                Some(c) if !quoted && c.is_whitespace() => break true,
                Some(c) => read.push(c),
                None => break !quoted,
            }
        };
        if !closed {
            bail!("database-url does not read: a quote is not closed");
        }
        pairs.push((key, read));
        rest = chars.as_str().trim_start();
    }
    Ok(pairs)
}

fn fill(
    config: &mut Config,
    passfile: Option<String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    if config.get_user().is_none() {
        let user = environment("PGUSER").map_or_else(whoami::username, Ok);
        config.user(user.context("no user: set it in database-url or PGUSER")?);
    }
    if config.get_dbname().is_none()
        && let Some(name) = environment("PGDATABASE")
    {
        config.dbname(name);
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        for address in environment("PGHOSTADDR").iter().flat_map(|list| list.split(',')) {
            let address = address.parse();
            config.hostaddr(address.context("PGHOSTADDR is no address")?);
        }
        let hosts = environment("PGHOST");
        if hosts.is_some() || config.get_hostaddrs().is_empty() {
            for host in hosts.as_deref().unwrap_or(SOCKETS).split(',') {
                config.host(host);
            }
        }
    }
    // TLS needs a name: an address without one is its own.
    if config.get_hosts().is_empty() {
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    if config.get_ports().is_empty()
        && let Some(ports) = environment("PGPORT")
    {
        for port in ports.split(',') {
            config.port(port.parse().with_context(|| format!("PGPORT \"{port}\" is no port"))?);
        }
    }
    // A silent worker is fenced by this name among others: it begins with ours, whatever follows.
    let given = config.get_application_name().map(str::to_owned).or_else(|| environment("PGAPPNAME"));
    config.application_name(match given {
        None => "klaxon".to_owned(),
        Some(name) if name.starts_with("klaxon") => name,
        Some(name) => format!("klaxon {name}"),
    });
    if config.get_options().is_none()
        && let Some(options) = environment("PGOPTIONS")
    {
        config.options(options);
    }
    if config.get_target_session_attrs() == TargetSessionAttrs::Any
        && let Some(wanted) = environment("PGTARGETSESSIONATTRS")
    {
        config.target_session_attrs(match wanted.as_str() {
            "any" => TargetSessionAttrs::Any,
            "read-write" => TargetSessionAttrs::ReadWrite,
            "read-only" => TargetSessionAttrs::ReadOnly,
            _ => bail!("PGTARGETSESSIONATTRS \"{wanted}\" is none of any, read-write and read-only"),
        });
    }
    if config.get_password().is_none()
        && let Some(password) = environment("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_password().is_none()
        && let Some(path) = passfile
            .or_else(|| environment("PGPASSFILE"))
            .or_else(|| environment("HOME").map(|home| format!("{home}/.pgpass")))
        && let Some(password) = password_of(config, &path)
    {
        config.password(password);
    }
    Ok(())
}

/// The first password of the file that fits: host:port:database:user:password, `*` for any.
fn password_of(config: &Config, path: &str) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    // As libpq: a file that others can read is not believed.
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(path, "password file ignored: it is open to others; chmod 600");
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) if folder.to_str() != Some(SOCKETS) => folder.display().to_string(),
        _ => "localhost".into(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let wanted = [host.as_str(), port.as_str(), database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let fits =
            fields.len() == 5 && wanted.iter().zip(&fields).all(|(want, have)| have == "*" || have == want);
        fits.then(|| fields[4].clone())
    })
}

/// Fields between colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '\\' => fields[last].extend(chars.next()),
            ':' => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

/// Host and database, for the log.
pub fn name(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests;
