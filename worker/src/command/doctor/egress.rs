//! Whether channels' hosts can be reached under the egress policy. Nothing is sent there.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;
use url::Url;

use super::Findings;
use crate::command::run::{courier, guard};
use crate::config::Settings;
use crate::database::describe;
use crate::directory::{self, Directory, Found};
use crate::egress::{EgressError, Guard, Purpose};
use crate::keyring::Keyring;
use crate::statement::Statements;

/// Hosts that are asked at a time.
const AT_ONCE: usize = 16;

/// Asks for each host of an enabled channel: is it allowed, and does it answer?
pub async fn examine(client: &Client, settings: &Settings, findings: &mut Findings) -> anyhow::Result<()> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let own = courier(settings).smtp.map(|smtp| format!("smtp://{}:{}", smtp.server.host, smtp.server.port));
    for (name, destination) in destinations(client, settings).await? {
        match destination.map(|destination| destination.or_else(|| own.clone())) {
            Ok(Some(host)) => hosts.entry(host).or_default().push(name),
            Ok(None) => findings.fail(
                "channel",
                format!("{name} has no mail server, and the worker has none either"),
                "set smtp-host, or smtp_host in the channel's config",
            ),
            Err(problem) => findings.fail(
                "channel",
                format!("{name} does not open: {problem}"),
                "UPDATE klaxon.channel SET config = … with its secrets given again",
            ),
        }
    }
    let guard = Guard::new(guard(settings)?)?;
    let asked = stream::iter(hosts).map(|(host, channels)| {
        let guard = &guard;
        async move { (reach(guard, settings, &host).await, host, channels) }
    });
    for (reached, host, channels) in asked.buffered(AT_ONCE).collect::<Vec<_>>().await {
        let of = match &channels[..] {
            [one] => format!("{host} of channel {one}"),
            many => format!("{host} of {} channels", many.len()),
        };
        match reached {
            Ok(()) => findings.ok("egress", format!("{of} answers")),
            Err(Unreached::Refused(error)) => {
                let mend = match error {
                    EgressError::Port(port) => format!("klaxon run --allow-port {port}"),
                    EgressError::Clear => {
                        "klaxon run --allow-http, or give the channel an https url".to_owned()
                    }
                    EgressError::Policy => {
                        "klaxon run --egress-allow CIDR, if that host is to be reached at all".to_owned()
                    }
                    EgressError::Unresolved => "check the host's name, and this host's resolver".to_owned(),
                };
                findings.fail("egress", format!("{of}: {error}"), mend);
            }
            Err(Unreached::Silent(why)) => findings.fail(
                "egress",
                format!("{of}: {why}"),
                "open the firewall for it; proxies are not used",
            ),
        }
    }
    Ok(())
}

/// Name and destination of each enabled channel; a mail channel without a server of its own has none.
async fn destinations(
    client: &Client,
    settings: &Settings,
) -> anyhow::Result<Vec<(String, Result<Option<String>, String>)>> {
    let rows = client.query("SELECT id FROM klaxon.channel WHERE enabled ORDER BY id", &[]).await;
    let ids: Vec<i64> = rows.map_err(describe)?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut directory = Directory::new(Instant::now());
    for id in &ids {
        directory.find(*id, None);
    }
    let Some(request) = directory.request(Instant::now()) else { return Ok(Vec::new()) };
    let statements = Statements::prepare(client).await.map_err(describe)?;
    let keyring = Keyring::load(settings).context("the keys")?;
    directory.apply(directory::load(client, &statements, &keyring, request).await.map_err(describe)?);
    let mut found = Vec::new();
    for id in ids {
        // One that was deleted meanwhile needs no host.
        if let (Found::Route(route), _) = directory.find(id, None) {
            let settings = route.channel.settings.as_ref();
            let destination = settings.map(|settings| settings.target.destination()).map_err(Clone::clone);
            found.push((route.channel.name.clone(), destination));
        }
    }
    Ok(found)
}

/// Why a host was not reached.
enum Unreached {
    Refused(EgressError),
    Silent(String),
}

/// Connects to the first address that the guard has judged and that answers, and hangs up.
async fn reach(guard: &Guard, settings: &Settings, host: &str) -> Result<(), Unreached> {
    let url = Url::parse(host).map_err(|_| Unreached::Silent("is no address".to_owned()))?;
    let (purpose, default) = match url.scheme() {
        "http" => (Purpose::Http, 80),
        "smtp" => (Purpose::Smtp, 587),
        _ => (Purpose::Https, 443),
    };
    let name = url.host_str().unwrap_or_default();
    let port = url.port().unwrap_or(default);
    let addresses = guard.target(name, port, purpose).await.map_err(Unreached::Refused)?;
    let mut why = String::new();
    for address in addresses {
        match timeout(settings.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(()),
            // Its kind alone: the address is nobody's to know.
            Ok(Err(error)) => why = format!("cannot connect: {}", error.kind()),
            Err(_) => why = format!("no answer in {} s", settings.connect_timeout.as_secs_f64()),
        }
    }
    Err(Unreached::Silent(why))
}
