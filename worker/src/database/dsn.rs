//! Connection strings and libpq's environment.

use anyhow::{Context as _, bail};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use url::Url;

use super::{standard, tls};

/// Reads a URL or a key=value string, `environment` filling what it leaves out.
pub fn parse(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<(Config, tls::Mode)> {
    let (rest, mut sslmode, mut sslrootcert) = take_tls(text)?;
    // The error may repeat what it could not read, which may be a password.
    let mut config: Config = rest
        .parse()
        .map_err(|_| anyhow::anyhow!("database-url does not read as a Postgres URL or key=value string"))?;
    fill(&mut config, environment)?;
    sslmode = sslmode.or_else(|| environment("PGSSLMODE"));
    sslrootcert = sslrootcert.or_else(|| environment("PGSSLROOTCERT"));
    let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let mode = tls::Mode::parse(sslmode.as_deref().unwrap_or("prefer"), sslrootcert, local)?;
    config.ssl_mode(match mode {
        tls::Mode::Disabled => SslMode::Disable,
        tls::Mode::Preferred => SslMode::Prefer,
        _ => SslMode::Require,
    });
    standard(&mut config);
    Ok((config, mode))
}

/// Takes out what tokio-postgres knows less of than libpq: `sslmode` beyond `require`, `sslrootcert`.
fn take_tls(text: &str) -> anyhow::Result<(String, Option<String>, Option<String>)> {
    let (mut sslmode, mut sslrootcert) = (None, None);
    let mut keep = |key: &str, value: &str| match key {
        "sslmode" => {
            sslmode = Some(value.to_owned());
            false
        }
        "sslrootcert" => {
            sslrootcert = Some(value.to_owned());
            false
        }
        _ => true,
    };
    let rest = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        match text.split_once('?') {
            None => text.to_owned(),
            Some((base, query)) => {
                let query: Vec<&str> = query
                    .split('&')
                    .filter(|pair| {
                        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                        let decoded = Url::parse(&format!("x:?v={value}"))
                            .ok()
                            .and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()));
                        keep(key, &decoded.unwrap_or_default())
                    })
                    .collect();
                if query.is_empty() { base.to_owned() } else { format!("{base}?{}", query.join("&")) }
            }
        }
    } else {
        text.split_whitespace()
            .filter(|pair| {
                pair.split_once('=').is_none_or(|(key, value)| keep(key, value.trim_matches('\'')))
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok((rest, sslmode, sslrootcert))
}

fn fill(config: &mut Config, environment: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    if config.get_user().is_none() {
        let user = environment("PGUSER").or_else(|| environment("USER")).or_else(|| environment("LOGNAME"));
        config.user(user.context("no user: set it in database-url or PGUSER")?);
    }
    if config.get_dbname().is_none()
        && let Some(name) = environment("PGDATABASE")
    {
        config.dbname(name);
    }
    if config.get_password().is_none()
        && let Some(password) = environment("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let hosts = environment("PGHOST").unwrap_or_else(|| "/var/run/postgresql".into());
        for host in hosts.split(',') {
            config.host(host);
        }
    }
    if config.get_ports().is_empty()
        && let Some(ports) = environment("PGPORT")
    {
        for port in ports.split(',') {
            config.port(port.parse().with_context(|| format!("PGPORT \"{port}\" is no port"))?);
        }
    }
    if config.get_password().is_none()
        && let Some(password) = passfile(config, environment)?
    {
        config.password(password);
    }
    Ok(())
}

/// `~/.pgpass`, or what PGPASSFILE names: host:port:database:user:password, `*` for any.
fn passfile(config: &Config, environment: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<String>> {
    let path =
        environment("PGPASSFILE").or_else(|| environment("HOME").map(|home| format!("{home}/.pgpass")));
    let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) else { return Ok(None) };
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        _ => "localhost".into(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let wanted = [host.as_str(), port.as_str(), database, user];
        let fits =
            fields.len() == 5 && wanted.iter().zip(&fields).all(|(want, have)| have == "*" || have == want);
        fits.then(|| fields[4].clone())
    }))
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

/// Refuses what libpq would not know either.
pub fn unknown_mode(mode: &str) -> anyhow::Result<tls::Mode> {
    bail!("sslmode \"{mode}\" is none of disable, allow, prefer, require, verify-ca and verify-full")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn urls_and_strings_read() {
        let (config, mode) = parse("postgres://u:p@db.example.com:5433/app?sslmode=verify-full&sslrootcert=%2Fca.pem&connect_timeout=3", &none).unwrap();
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(mode, tls::Mode::Verified { root: Some("/ca.pem".into()), name: true });
        assert_eq!(name(&config), "db.example.com/app");

        let (config, mode) = parse("host=/run/pg user=u dbname=d sslmode=disable", &none).unwrap();
        assert_eq!((name(&config).as_str(), mode), ("/run/pg/d", tls::Mode::Disabled));
    }

    #[test]
    fn the_environment_fills_what_is_left_out() {
        let environment = |key: &str| match key {
            "PGUSER" => Some("ann".to_owned()),
            "PGHOST" => Some("one,two".to_owned()),
            "PGPORT" => Some("6543".to_owned()),
            "PGDATABASE" => Some("app".to_owned()),
            "PGSSLMODE" => Some("require".to_owned()),
            _ => None,
        };
        let (config, mode) = parse("", &environment).unwrap();
        assert_eq!((name(&config).as_str(), config.get_ports()), ("one,two/app", &[6543][..]));
        assert_eq!(mode, tls::Mode::Required);
    }

    #[test]
    fn what_does_not_read_is_refused_without_its_password() {
        let error = parse("postgres://u:hunter2@h:port/d", &none).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(
            parse("postgres://u@h/d?sslmode=maybe", &none).unwrap_err().to_string().contains("\"maybe\"")
        );
        assert!(parse("host=h", &none).unwrap_err().to_string().contains("PGUSER"));
    }

    #[test]
    fn a_password_file_is_read_as_libpq_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "# no\nother:*:*:*:wrong\nh:5432:d:u:a\\:b\\\\c\n").unwrap();
        let path = path.display().to_string();
        let environment = |key: &str| (key == "PGPASSFILE").then(|| path.clone());
        let (config, _) = parse("postgres://u@h:5432/d", &environment).unwrap();
        assert_eq!(config.get_password(), Some(b"a:b\\c".as_slice()));
    }
}
