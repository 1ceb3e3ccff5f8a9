//! Where deliveries go and what is known of them: channels, projects and event types, read when they
//! are first needed, and again when they may have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join3;
use klaxon_channel::config::{self, Rules};
use klaxon_channel::kind::Kind;
use klaxon_model::event_type::Severity;
use klaxon_model::seal::{self, SecretKey};
use tokio_postgres::{Client, Error, Row};

use crate::channel::{Channel, Project};
use crate::keyring::Keyring;
use crate::settle::ChannelName;
use crate::statement::Statements;

/// How old what is known may grow where no notification says that it has changed.
const STALE: Duration = Duration::from_secs(60);

/// A channel that deliveries can go to.
#[derive(Debug)]
pub struct Route {
    /// What the courier needs.
    pub channel: Channel,
    /// What the log needs.
    pub name: Arc<ChannelName>,
    /// Whether it is sent to.
    pub enabled: bool,
}

/// What an event type means.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    /// How bad it is.
    pub severity: Option<Severity>,
    /// The type it ends.
    pub resolves: Option<String>,
}

/// What is known of a channel.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing yet: it will be read.
    NotYet,
    /// It does not exist.
    Missing,
    /// It does.
    Route(Arc<Route>),
}

/// What to read from the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    channels: Vec<i64>,
    projects: Vec<String>,
}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    request: Request,
    routes: Vec<Arc<Route>>,
    projects: Vec<Arc<Project>>,
    types: HashMap<String, Meaning>,
}

/// What is known, of one database.
#[derive(Debug)]
pub struct Directory {
    channels: HashMap<i64, Option<Arc<Route>>>,
    projects: HashMap<String, Option<Arc<Project>>>,
    types: HashMap<String, Meaning>,
    wanted_channels: BTreeSet<i64>,
    wanted_projects: BTreeSet<String>,
    used_channels: BTreeSet<i64>,
    used_projects: BTreeSet<String>,
    read_at: Instant,
    changed: bool,
}

impl Directory {
    /// Knows nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            channels: HashMap::new(),
            projects: HashMap::new(),
            types: HashMap::new(),
            wanted_channels: BTreeSet::new(),
            wanted_projects: BTreeSet::new(),
            used_channels: BTreeSet::new(),
            used_projects: BTreeSet::new(),
            read_at: now,
            changed: false,
        }
    }

    /// Something may have changed: everything in use is to be read again.
    pub fn invalidate(&mut self) {
        self.changed = true;
    }

    /// The channel of a delivery, and its project where it has one that is known.
    pub fn find(&mut self, channel_id: i64, project: Option<&str>) -> (Found, Option<Arc<Project>>) {
        let found = match self.channels.get(&channel_id) {
            None => {
                self.wanted_channels.insert(channel_id);
                Found::NotYet
            }
            Some(known) => {
                self.used_channels.insert(channel_id);
                known.as_ref().map_or(Found::Missing, |route| Found::Route(Arc::clone(route)))
            }
        };
        let Some(slug) = project else { return (found, None) };
        match self.projects.get(slug) {
            Some(project) => {
                if !self.used_projects.contains(slug) {
                    self.used_projects.insert(slug.to_owned());
                }
                (found, project.clone())
            }
            None => {
                self.wanted_channels.insert(channel_id);
                self.wanted_projects.insert(slug.to_owned());
                (Found::NotYet, None)
            }
        }
    }

    /// What an event type means.
    pub fn meaning(&self, event_type: &str) -> Option<&Meaning> {
        self.types.get(event_type)
    }

    /// What should be read now, if anything. What nobody has used since the last time is forgotten
    /// when everything is read again.
    pub fn request(&mut self, now: Instant) -> Option<Request> {
        let again = self.changed || now.duration_since(self.read_at) >= STALE;
        if !again && self.wanted_channels.is_empty() && self.wanted_projects.is_empty() {
            return None;
        }
        if again {
            (self.changed, self.read_at) = (false, now);
            self.wanted_channels.append(&mut self.used_channels);
            self.wanted_projects.append(&mut self.used_projects);
            // Kept until the answer is there, so that deliveries do not wait for it.
            self.channels.retain(|id, _| self.wanted_channels.contains(id));
            self.projects.retain(|slug, _| self.wanted_projects.contains(slug));
        }
        Some(Request {
            channels: std::mem::take(&mut self.wanted_channels).into_iter().collect(),
            projects: std::mem::take(&mut self.wanted_projects).into_iter().collect(),
        })
    }

    /// Forgets what was read over a session that is lost: meanwhile anything may have changed.
    pub fn clear(&mut self) {
        *self = Self::new(self.read_at);
    }

    /// Takes in what was read.
    pub fn apply(&mut self, loaded: Loaded) {
        self.types = loaded.types;
        self.channels.extend(loaded.request.channels.into_iter().map(|id| (id, None)));
        for route in loaded.routes {
            self.channels.insert(route.channel.id, Some(route));
        }
        self.projects.extend(loaded.request.projects.into_iter().map(|slug| (slug, None)));
        for project in loaded.projects {
            self.projects.insert(project.slug.clone(), Some(project));
        }
    }
}

/// Reads what was requested. A channel that does not open is a channel all the same: its deliveries
/// are given up with the reason.
///
/// # Errors
///
/// Where the session breaks.
pub async fn load(
    client: &Client,
    statements: &Statements,
    keyring: &Keyring,
    request: Request,
) -> Result<Loaded, Error> {
    let (channels, projects, types) = try_join3(
        client.query(&statements.channels, &[&request.channels]),
        client.query(&statements.projects, &[&request.projects]),
        client.query(&statements.event_types, &[]),
    )
    .await?;
    let routes = channels.iter().map(|row| route(row, keyring)).collect::<Result<_, _>>()?;
    let projects = projects.iter().map(project).collect::<Result<_, _>>()?;
    let types = types.iter().map(meaning).collect::<Result<_, _>>()?;
    Ok(Loaded { request, routes, projects, types })
}

fn project(row: &Row) -> Result<Arc<Project>, Error> {
    let slug: String = row.try_get("slug")?;
    Ok(Arc::new(Project { name: row.try_get("name")?, url: row.try_get("url")?, slug }))
}

fn meaning(row: &Row) -> Result<(String, Meaning), Error> {
    let severity: Option<String> = row.try_get("severity")?;
    let severity = severity.and_then(|severity| severity.parse().ok());
    Ok((row.try_get("name")?, Meaning { severity, resolves: row.try_get("resolves")? }))
}

fn route(row: &Row, keyring: &Keyring) -> Result<Arc<Route>, Error> {
    let (id, name): (i64, String) = (row.try_get("id")?, row.try_get("name")?);
    let kind: String = row.try_get("kind")?;
    let config: String = row.try_get("config")?;
    let sealed: BTreeMap<String, String> = {
        let (fields, sealed): (Vec<String>, Vec<String>) = (row.try_get("fields")?, row.try_get("sealed")?);
        fields.into_iter().zip(sealed).collect()
    };
    // The check constraint admits no other kind.
    let kind: Kind = kind.parse().unwrap_or(Kind::Webhook);
    let settings = keyring.open(|keys| open(id, kind, &config, &sealed, keys));
    let channel = Channel { id, name: name.clone(), settings };
    let name = Arc::new(ChannelName { name, kind: kind.as_str() });
    Ok(Arc::new(Route { channel, name, enabled: row.try_get("enabled")? }))
}

/// Opens a channel's secrets and reads its configuration.
///
/// A sealed value carries the channel and the destination it was given for. Both are compared with
/// what the row says now: whoever can write the tables could otherwise have a secret of one channel
/// sent wherever another one points.
pub fn open(
    id: i64,
    kind: Kind,
    config: &str,
    sealed: &BTreeMap<String, String>,
    keys: &[SecretKey],
) -> Result<config::Settings, String> {
    let config = serde_json::from_str(config).map_err(|_| "config is no JSON".to_owned())?;
    let rules = Rules { allow_http: true, needs_smtp_host: false };
    let destination = config::check(kind, &config, &rules).map_err(|error| error.to_string())?.destination;
    let mut secrets = BTreeMap::new();
    for (field, sealed) in sealed {
        let plain =
            seal::open(keys, sealed).map_err(|error| format!("secret {field} does not open: {error}"))?;
        if plain.channel.is_some_and(|channel| channel != id) {
            return Err(format!("secret {field} belongs to another channel"));
        }
        if plain.destination.is_some() && destination.is_some() && plain.destination != destination {
            return Err(format!("secret {field} was given for another destination"));
        }
        // Sealed by hand without saying for which field.
        if !plain.field.is_empty() && plain.field != *field {
            return Err(format!("secret {field} was given for another field"));
        }
        secrets.insert(field.clone(), plain.value);
    }
    config::open(kind, &config, &secrets).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &mut Directory, now: Instant) -> Option<Request> {
        let request = directory.request(now)?;
        let (routes, projects) = (Vec::new(), Vec::new());
        directory.apply(Loaded { request: request.clone(), routes, projects, types: HashMap::new() });
        Some(request)
    }

    #[test]
    fn what_nobody_has_used_for_a_while_is_forgotten() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        for run in 0..100 {
            directory.find(1, Some(&format!("run-{run}")));
            directory.find(run, None);
        }
        assert_eq!(
            read(&mut directory, now).map(|all| (all.channels.len(), all.projects.len())),
            Some((100, 100))
        );
        directory.find(1, Some("run-1"));
        let (channels, projects) = (vec![1], vec!["run-1".to_owned()]);
        assert_eq!(read(&mut directory, now + STALE), Some(Request { channels, projects }));
        assert_eq!((directory.channels.len(), directory.projects.len()), (1, 1));
        assert_eq!(read(&mut directory, now + 2 * STALE), Some(Request::default()));
        assert!(directory.channels.is_empty() && directory.projects.is_empty());
    }
}
