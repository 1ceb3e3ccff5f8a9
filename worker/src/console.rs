//! What the worker answers at `metrics-addr`: a page for people, `/metrics` for Prometheus, `/healthz` and
//! `/readyz` for an orchestrator. Nothing here changes anything.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use self::page::Page;
use crate::metrics::{Recorder, Served};
use crate::observe::Observer;

mod page;

/// How long a client may take to send a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections at a time: whoever opens more waits.
const CONNECTIONS: usize = 64;

/// What is answered with.
pub struct Console {
    recorder: Recorder,
    served: Arc<Served>,
    databases: usize,
    observer: Observer,
    permits: Arc<Semaphore>,
    concurrency: usize,
    token: Option<SecretString>,
    page: Page,
}

/// A page's or a probe's body, with what it is.
struct Reply {
    status: StatusCode,
    kind: &'static str,
    text: String,
}

impl Reply {
    fn text(status: StatusCode, text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", text: text.to_owned() }
    }
}

impl Console {
    /// A console of the deliveries that `permits`, of `concurrency`, allow.
    ///
    /// # Errors
    /// Where metrics are recorded already, or the page's template does not parse.
    pub fn new(
        served: Arc<Served>,
        observer: Observer,
        databases: usize,
        permits: Arc<Semaphore>,
        concurrency: usize,
        token: Option<SecretString>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            recorder: Recorder::install()?,
            served,
            databases,
            observer,
            permits,
            concurrency,
            token,
            page: Page::new()?,
        })
    }

    /// Answers until the process ends. That the address is taken, by another worker on this host perhaps, is a
    /// warning: deliveries do not depend on it.
    ///
    /// # Errors
    /// Never, once it listens.
    pub async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%address, %error, "metrics are not served");
                return Ok(());
            }
        };
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        let (console, room) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        tokio::spawn(async move {
            loop {
                // Nobody closes it.
                let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
                // A connection that broke before it was accepted is its client's affair. Where the process has no
                // descriptor left, the next would fail at once as well.
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                let console = Arc::clone(&console);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let console = Arc::clone(&console);
                        async move { Ok::<_, Infallible>(console.answer(&request).await) }
                    });
                    // What a client does to its own connection needs no line in the log.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(PATIENCE)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let reply = self.reply(request).await;
        let mut response = Response::new(Full::new(Bytes::from(reply.text)));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &str| {
            // All are text of ours.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, reply.kind);
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::CONTENT_SECURITY_POLICY, self.page.policy());
        if reply.status == StatusCode::UNAUTHORIZED {
            // Browsers ask for a password; Prometheus sends a bearer's token unasked.
            set(header::WWW_AUTHENTICATE, "Basic realm=\"klaxon\", charset=\"UTF-8\"");
        }
        response
    }

    async fn reply(&self, request: &Request<Incoming>) -> Reply {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n");
        }
        // Probes say nothing that is worth a token.
        match request.uri().path() {
            "/healthz" => return Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" if self.served.all(self.databases) => return Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                return Reply::text(StatusCode::SERVICE_UNAVAILABLE, "not every database is being served\n");
            }
            _ => {}
        }
        if self.token.as_ref().is_some_and(|token| !is_given(token, request.headers())) {
            return Reply::text(
                StatusCode::UNAUTHORIZED,
                "give metrics-token, as a bearer's or as a password of any user\n",
            );
        }
        match request.uri().path() {
            "/metrics" => {
                let in_flight = self.concurrency.saturating_sub(self.permits.available_permits());
                let text = self.recorder.render(in_flight, &self.observer.gauges().await);
                Reply { status: StatusCode::OK, kind: "text/plain; version=0.0.4; charset=utf-8", text }
            }
            "/" if self.token.is_none() && !is_local(request.headers()) => Reply::text(
                StatusCode::FORBIDDEN,
                "without metrics-token the page is for this host's own browsers, by localhost or an address\n",
            ),
            "/" => match self.page.render(&self.observer.views().await) {
                Ok(text) => Reply { status: StatusCode::OK, kind: "text/html; charset=utf-8", text },
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the page was not rendered");
                    Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the page was not rendered: see the log\n")
                }
            },
            _ => Reply::text(StatusCode::NOT_FOUND, "/, /metrics, /healthz and /readyz are here\n"),
        }
    }
}

/// Whether the request has the token. How long the comparison takes tells nothing but the token's length.
fn is_given(token: &SecretString, headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let (scheme, rest) = given.split_once(' ').unwrap_or((given, ""));
    let given = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.trim().as_bytes().to_vec(),
        "basic" => {
            let decoded = BASE64_STANDARD.decode(rest.trim()).unwrap_or_default();
            let password = decoded.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
            decoded[password..].to_vec()
        }
        _ => return false,
    };
    token.expose_secret().as_bytes().ct_eq(&given).into()
}

/// Whether the request names this host as no other site's name can, so that a page elsewhere, whose name is
/// made to lead here (DNS rebinding), cannot read what is meant for people at this host.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_token_is_a_bearers_or_a_password() {
        let token = SecretString::from("correct horse battery");
        let given = |value: &str| is_given(&token, &headers(header::AUTHORIZATION, value));
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert!(given("Bearer correct horse battery") && given("bearer correct horse battery"));
        assert!(given(&basic("anyone:correct horse battery")) && given(&basic(":correct horse battery")));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer correct horse batterz",
            "Bearer correct",
            "Digest correct horse battery",
        ] {
            assert!(!given(wrong), "{wrong}");
        }
        assert!(!given(&basic("correct horse battery:")) && !given("Basic !!!"));
        assert!(!is_given(&token, &HeaderMap::new()));
    }

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for (host, local) in [
            ("127.0.0.1:9464", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("[::1]:9464", true),
            ("evil.example:9464", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_local(&headers(header::HOST, host)), local, "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }
}
