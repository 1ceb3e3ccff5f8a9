//! The README and the book: what they say is true, leads somewhere, and is all that there is.

use std::path::{Path, PathBuf};

mod blocks;
mod book;
mod reference;

/// Where the repository is.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages in which something is run, each a test.
macro_rules! chapters {
    ($($name:ident = $path:literal,)*) => {
        const RUN: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $name() {
                blocks::follow($path);
            }
        )*
    };
}

chapters! {
    the_readme_runs = "README.md",
    the_tour_runs = "docs/tour.md",
    concepts_run = "docs/concepts.md",
    channels_run = "docs/channels.md",
    webhook_runs = "docs/channels/webhook.md",
    email_runs = "docs/channels/email.md",
    slack_runs = "docs/channels/slack.md",
    telegram_runs = "docs/channels/telegram.md",
    pagerduty_runs = "docs/channels/pagerduty.md",
    discord_runs = "docs/channels/discord.md",
    teams_runs = "docs/channels/teams.md",
    ntfy_runs = "docs/channels/ntfy.md",
    filters_run = "docs/filters.md",
    the_cookbook_runs = "docs/cookbook.md",
    postgrest_runs = "docs/postgrest.md",
    watchers_run = "docs/watchers.md",
    operations_run = "docs/operations.md",
    migrating_runs = "docs/migrating.md",
}
