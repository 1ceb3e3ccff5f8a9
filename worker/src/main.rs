//! `klaxon`, the worker of pg_klaxon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, setrlimit};

mod backoff;
mod caution;
mod channel;
mod circuit;
mod clock;
mod command;
mod config;
mod console;
mod cooldown;
mod database;
mod deployment;
mod directory;
mod discover;
mod egress;
mod installation;
mod journal;
mod keyring;
mod keys;
mod logging;
mod metrics;
mod observe;
mod ownership;
mod run;
mod schedule;
mod settle;
mod statement;
mod supervisor;
mod trace;

use config::{Flags, Settings};

/// A delivery is some dozens of small allocations, made on one thread and freed on another: the system's
/// allocator took a third of the worker's time for them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Delivers what Postgres transactions committed to webhook, email, Slack, Telegram, PagerDuty, Discord,
/// Microsoft Teams and ntfy.
#[derive(Parser)]
#[command(name = "klaxon", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    /// The configuration file [default: ./klaxon.toml, then /etc/klaxon/klaxon.toml]
    #[arg(long, global = true, env = "KLAXON_CONFIG", value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the databases until SIGTERM
    Run,
    /// Write the configuration file and the keys, and make the databases this deployment's
    Init(command::init::Init),
    /// Make a copied database this deployment's own; what it has pending is dropped
    Adopt(command::adopt::Adopt),
    /// Seal a secret read from standard input, to be written in its place
    Seal(command::seal::Seal),
    /// Send a test message
    Test(command::test::Test),
    /// Show what a channel would be sent
    Preview(command::preview::Preview),
    /// Say whether it works: workers, what is pending, which channels fail
    Status(command::status::Status),
    /// Examine the installation, and say what would mend what is wrong
    Doctor(command::doctor::Doctor),
    /// Put dead letters back, to be tried again
    Retry(command::retry::Retry),
    /// Send past events to a channel again
    Replay(command::replay::Replay),
    /// The keys that secrets are sealed to and the log is signed with
    #[command(subcommand)]
    Keys(command::keys::KeysCommand),
    /// Examine the audit log
    #[command(subcommand)]
    Audit(command::audit::Audit),
    /// Print a shell's completions
    Completions(command::completions::Completions),
    /// Print the manual page, or write those of all commands
    Man(command::man::Man),
}

#[tokio::main]
async fn main() -> ExitCode {
    keep_no_core();
    let cli = Cli::parse();
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("klaxon: {error:#}");
            // 1 is a finding of audit verify; what could not be done is 2.
            ExitCode::from(2)
        }
    }
}

/// A crash leaves no image of the memory behind: keys and secrets would be in it.
fn keep_no_core() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("klaxon: a crash may leave its memory in a file: {error}");
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let cli = match cli {
        // Of the program alone: whatever the settings are.
        Cli { command: Command::Completions(completions), .. } => return completions.run(Cli::command()),
        Cli { command: Command::Man(man), .. } => return man.run(Cli::command()),
        cli => cli,
    };
    let settings = match &cli.command {
        // These write the file that the others read.
        Command::Init(_) => Settings::load_without_file(&cli.flags)?,
        Command::Adopt(_) if cli.config.as_ref().is_some_and(|path| !path.exists()) => {
            Settings::load_without_file(&cli.flags)?
        }
        Command::Test(test) if test.is_unsaved() => Settings::load(None, &cli.flags)?,
        _ => Settings::load(cli.config.as_deref(), &cli.flags)?,
    };
    logging::start(settings.log_format);
    match cli.command {
        Command::Run => command::run::run(settings).await,
        Command::Init(init) => init.run(cli.config, &settings).await,
        Command::Adopt(adopt) => adopt.run(cli.config, &settings).await,
        Command::Seal(seal) => seal.run(&settings),
        Command::Test(test) => test.run(cli.config, &settings).await,
        Command::Preview(preview) => preview.run(&settings).await,
        Command::Status(status) => status.run(&settings).await,
        Command::Doctor(doctor) => doctor.run(&settings).await,
        Command::Keys(keys) => keys.run(&settings).await,
        Command::Audit(audit) => audit.run(&settings).await,
        Command::Retry(retry) => retry.run(&settings).await,
        Command::Replay(replay) => replay.run(&settings).await,
        Command::Completions(_) | Command::Man(_) => unreachable!("they need no settings"),
    }
}
