//! `klaxon run`: serve the databases until SIGTERM.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::channel::{Courier, Options, Smtp};
use crate::config::Settings;
use crate::console::Console;
use crate::database::Target;
use crate::egress::{Guard, GuardOptions};
use crate::keyring::Keyring;
use crate::metrics::Served;
use crate::observe::Observer;
use crate::run::{self, Shared};
use crate::supervisor;
use crate::trace::{self, Tracer};
use klaxon_channel::form::{Login, Server};

/// How long after `http-timeout` a worker that was told to stop has ended: within five seconds, the process's own end
/// included.
const END: Duration = Duration::from_millis(4_500);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Where the configuration, the keys or a database's deployment do not allow it to begin.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let keyring = Arc::new(Keyring::load(&settings)?);
    let targets = Target::all(&settings.database_url)?;
    let served = Arc::<Served>::default();
    let permits = Arc::new(Semaphore::new(settings.concurrency));
    Console::new(
        Arc::clone(&served),
        Observer::new(&targets),
        targets.len(),
        Arc::clone(&permits),
        settings.concurrency,
        settings.metrics_token.clone(),
    )?
    .serve(settings.metrics_addr)
    .await?;
    let host = hostname::get().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
    let (tracer, exporting) = match &settings.otlp_endpoint {
        None => (Tracer::default(), None),
        Some(endpoint) => {
            let (tracer, exporting) = Tracer::exporting(trace::Options {
                endpoint: endpoint.clone(),
                headers: settings.otlp_headers.clone(),
                guard: guard(&settings)?,
                host: host.clone(),
                deployment: settings.deployment_id.clone(),
            })?;
            (tracer, Some(exporting))
        }
    };
    let shared = Shared {
        courier: Arc::new(Courier::new(Guard::new(guard(&settings)?)?, courier(&settings))?),
        tracer,
        permits,
        concurrency: settings.concurrency,
        per_channel: settings.per_channel,
        attempt_timeout: settings.http_timeout,
        poll_interval: settings.poll_interval,
        keyring,
        served,
        deployment_id: settings.deployment_id.clone(),
        checkpoint_file: settings.checkpoint_file.clone(),
        host,
        settings: settings.masked().to_string(),
    };
    let (stop, shutdown) = watch::channel(false);
    let told = Arc::<OnceLock<Instant>>::default();
    let stopped_at = Arc::clone(&told);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stopped_at.set(Instant::now());
        supervisor::stopping();
        tracing::info!("stopping: letting what is on its way finish");
        // Nobody left to tell is the end already.
        let _ = stop.send(true);
    });
    supervisor::ready();
    run::run(Arc::new(shared), targets, shutdown).await?;
    if let Some(exporting) = exporting {
        let stopping = told.get().map_or(Duration::ZERO, Instant::elapsed);
        exporting.finish((settings.http_timeout + END).saturating_sub(stopping)).await;
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The guard that the settings describe.
pub fn guard(settings: &Settings) -> anyhow::Result<GuardOptions> {
    Ok(GuardOptions {
        allow_http: settings.allow_http,
        allow_ports: settings.allow_port.clone(),
        egress_allow: settings.egress_allow.clone(),
        connect_to: settings.connect_to.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        ca_file: settings.ca_file.clone(),
        http_timeout: settings.http_timeout,
        connect_timeout: settings.connect_timeout,
        dns_timeout: settings.dns_timeout,
        dns_ttl: settings.dns_ttl,
        response_cap: settings.response_cap,
    })
}

/// What the settings add to messages.
pub fn courier(settings: &Settings) -> Options {
    let login = match (&settings.smtp_user, &settings.smtp_pass) {
        (Some(user), Some(pass)) => Some(Login { user: user.clone(), pass: pass.clone() }),
        _ => None,
    };
    let smtp = settings.smtp_host.as_ref().map(|host| Smtp {
        server: Server {
            host: host.clone(),
            port: settings.smtp_port,
            tls: true,
            implicit: settings.smtp_secure,
            login,
        },
        from: settings.smtp_from.clone().or_else(|| settings.smtp_user.clone()),
        from_name: settings.smtp_from_name.clone(),
    });
    Options { site_url: settings.site_url.clone(), smtp }
}
