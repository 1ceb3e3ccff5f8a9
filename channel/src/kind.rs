//! Which kinds there are. A new one is a file, its module and row here, and its golden tests.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::config::{Config, ConfigError, Field, Rules};
use crate::form::Form;

mod discord;
mod email;
mod header;
mod ntfy;
mod pagerduty;
mod slack;
mod teams;
mod telegram;
mod webhook;

/// From a row each: the enumeration, its names, its fields, its targets.
macro_rules! kinds {
    ($($(#[$says:meta])* $kind:ident = $name:literal: $target:ty,)*) => {
        /// What a channel is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$says])* $kind,)*
        }

        impl Kind {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// As `channel.kind` has it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// The fields of its configuration beside those that all kinds have.
            #[must_use]
            pub const fn fields(self) -> &'static [Field] {
                match self { $(Self::$kind => <$target as Config>::FIELDS),* }
            }

            /// Reads a configuration whose fields are known.
            pub(crate) fn read(self, map: &Map<String, Value>, rules: &Rules) -> Result<Target, ConfigError> {
                Ok(match self { $(Self::$kind => Target(Box::new(<$target as Config>::read(map, rules)?))),* })
            }
        }
    };
}

kinds! {
    /// A signed POST.
    Webhook = "webhook": webhook::Webhook,
    /// A mail.
    Email = "email": email::Email,
    /// A Slack incoming webhook.
    Slack = "slack": slack::Slack,
    /// A Telegram bot.
    Telegram = "telegram": telegram::Telegram,
    /// PagerDuty Events v2.
    Pagerduty = "pagerduty": pagerduty::Pagerduty,
    /// A Discord webhook.
    Discord = "discord": discord::Discord,
    /// A Microsoft Teams workflow's webhook.
    Teams = "teams": teams::Teams,
    /// A topic of an ntfy server.
    Ntfy = "ntfy": ntfy::Ntfy,
}

/// Where a channel sends, and how.
pub struct Target(Box<dyn Form>);

impl std::ops::Deref for Target {
    type Target = dyn Form;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("destination", &self.0.destination()).finish_non_exhaustive()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        write!(f, "unknown channel kind \"{}\": there are {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().copied().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| UnknownKind(name.chars().take(40).collect()))
    }
}
