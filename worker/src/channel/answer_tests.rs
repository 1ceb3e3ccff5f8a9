//! Each row of each table of answers, said by a server over TLS as its vendor says it: what is expected
//! stands here a second time, in the vendors' words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::HeaderMap;
use klaxon_channel::answer::{HTTP, Verdict};
use klaxon_channel::config::{self, Given, Rules};
use klaxon_channel::delivery::{Channel, Delivery};
use klaxon_channel::form::Reply;
use klaxon_channel::kind::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Courier, Options};
use crate::egress::tests::{authority, options};
use crate::egress::{Guard, GuardOptions};

const SENT: Verdict = Verdict::Sent;
const DEAD: Verdict = Verdict::Dead { disable: false };
const DISABLE: Verdict = Verdict::Dead { disable: true };
const RETRY: Verdict = Verdict::Retry { after: None };

fn wait(millis: u64) -> Verdict {
    Verdict::Retry { after: Some(Duration::from_millis(millis)) }
}

/// Status, headers, body, and what they mean.
type Case = (u16, &'static [(&'static str, &'static str)], &'static str, Verdict);

pub(super) fn channel(kind: Kind, config: &Value) -> Channel {
    let checked = config::check(kind, config, &Rules::default()).unwrap();
    let secrets = checked.secrets.into_iter().map(|secret| {
        let Given::Clear(value) = secret.value else { panic!("a secret in clear") };
        (secret.name, value.as_str().into())
    });
    let settings = config::open(kind, &checked.stored, &secrets.collect::<BTreeMap<_, _>>()).unwrap();
    Channel { id: 1, name: "ops".into(), settings: Ok(settings) }
}

pub(super) fn delivery() -> Delivery {
    crate::run::test::delivery(1_767_225_600_000_000)
}

/// A vendor under its own name.
struct Vendor {
    courier: Courier,
    says: Arc<Mutex<Vec<u8>>>,
    _ca: tempfile::NamedTempFile,
}

impl Vendor {
    async fn start(host: &str) -> Self {
        let (tls, ca) = authority(host);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let says = Arc::<Mutex<Vec<u8>>>::default();
        let said = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(stream).await else { continue };
                let answer = said.lock().unwrap().clone();
                // What asks fits in a packet; so does what answers.
                let _ = stream.read(&mut [0; 16 * 1024]).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        let guard = Guard::new(GuardOptions {
            egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
            connect_to: vec![format!("::127.0.0.1:{port}").parse().unwrap()],
            ca_file: Some(ca.path().to_owned()),
            ..options()
        });
        let courier = Courier::new(guard.unwrap(), Options::default()).unwrap();
        Self { courier, says, _ca: ca }
    }
}

/// Says all of these in turn, and finds each to mean what it should. Every row of the kind's table was
/// the one that decided at least once; of the rows of all kinds, which did is returned.
async fn understands(kind: Kind, host: &str, config: Value, cases: &[Case]) -> BTreeSet<usize> {
    let vendor = Vendor::start(host).await;
    let channel = channel(kind, &config);
    let own = channel.settings.as_ref().unwrap().target.answers();
    let mut decided = BTreeSet::new();
    for (status, headers, body, verdict) in cases {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        *vendor.says.lock().unwrap() = format!(
            "HTTP/1.1 {status} Said\r\n{lines}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .into_bytes();
        let answer = vendor.courier.deliver(&channel, &delivery()).await;
        let said = format!("{kind} {status} {headers:?} {body}: {answer:?}");
        assert_eq!(&answer.verdict, verdict, "{said}");
        assert_eq!(answer.code, Some((*status).into()), "{said}");
        assert_eq!(answer.error, (*verdict != SENT).then(|| format!("HTTP {status}")), "{said}");
        assert_eq!(
            answer.body.as_deref(),
            Some(*body).filter(|b| *verdict != SENT && !b.is_empty()),
            "{said}"
        );
        let reply = Reply { status: *status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        decided.extend(own.iter().chain(&HTTP).position(|row| row.fits(&reply)));
    }
    for (at, row) in own.iter().enumerate() {
        assert!(decided.contains(&at), "no answer of {kind}'s is decided by {row:?}");
    }
    decided.into_iter().filter(|row| *row >= own.len()).map(|row| row - own.len()).collect()
}

#[tokio::test]
async fn a_webhook_answers_as_it_likes() {
    let config = json!({"url": "https://receiver.test/x", "hmac_secret": "s"});
    let decided = understands(
        Kind::Webhook,
        "receiver.test",
        config,
        &[
            (200, &[], "ok", SENT),
            (202, &[], "", SENT),
            (204, &[], "", SENT),
            (301, &[("location", "https://receiver.test/y")], "", RETRY),
            (302, &[("location", "https://receiver.test/y")], "", RETRY),
            (308, &[("location", "https://receiver.test/y")], "", RETRY),
            (400, &[], "bad", RETRY),
            (401, &[], "", RETRY),
            (403, &[], "", RETRY),
            (404, &[], "", RETRY),
            (408, &[], "", RETRY),
            (410, &[], "gone", DISABLE),
            (413, &[], "", RETRY),
            (425, &[], "", RETRY),
            (429, &[("retry-after", "30")], "", wait(30_000)),
            (429, &[("retry-after", "99999")], "", wait(3_600_000)),
            (429, &[("retry-after", "soon")], "", RETRY),
            (
                503,
                &[
                    ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
                    ("retry-after", "Tue, 15 Nov 1994 08:13:31 GMT"),
                ],
                "",
                wait(60_000),
            ),
            (500, &[], "<h1>Internal Server Error</h1>", RETRY),
            (502, &[], "", RETRY),
            (504, &[], "", RETRY),
        ],
    )
    .await;
    assert_eq!(decided, (0..HTTP.len()).collect(), "every row of all kinds decided");
}

#[tokio::test]
async fn slack_says_a_word() {
    understands(
        Kind::Slack,
        "hooks.slack.com",
        json!({"webhook_url": "https://hooks.slack.com/services/T1/B1/xyzxyzxyz"}),
        &[
            (200, &[], "ok", SENT),
            (400, &[], "invalid_payload", DEAD),
            (400, &[], "no_text", DEAD),
            (400, &[], "too_many_attachments", DEAD),
            (400, &[], "invalid_blocks", DEAD),
            (400, &[], "user_not_found", DISABLE),
            (403, &[], "action_prohibited", DISABLE),
            (403, &[], "invalid_token", DISABLE),
            (403, &[], "posting_to_general_channel_denied", DISABLE),
            (403, &[], "team_disabled", DISABLE),
            (404, &[], "channel_not_found", DISABLE),
            (404, &[], "no_active_hooks", DISABLE),
            (404, &[], "no_service", DISABLE),
            (404, &[], "no_service_id", DISABLE),
            (404, &[], "no_team", DISABLE),
            (410, &[], "channel_is_archived", DISABLE),
            (410, &[], "", DISABLE),
            (413, &[], "", DEAD),
            (429, &[("retry-after", "30")], "rate_limited", wait(30_000)),
            (500, &[], "rollup_error", RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn discord_says_a_code() {
    understands(
        Kind::Discord,
        "discord.com",
        json!({"webhook_url": "https://discord.com/api/webhooks/1/xyzxyzxyz"}),
        &[
            (200, &[], "ok", SENT),
            (204, &[], "", SENT),
            (400, &[], r#"{"message": "Cannot send an empty message", "code": 50006}"#, DEAD),
            (400, &[], r#"{"message": "Unknown Webhook", "code": 10015}"#, DISABLE),
            (401, &[], r#"{"message": "Invalid Webhook Token", "code": 50027}"#, DISABLE),
            (401, &[], r#"{"message": "401: Unauthorized", "code": 0}"#, DISABLE),
            (404, &[], r#"{"message": "Unknown Webhook", "code": 10015}"#, DISABLE),
            (404, &[], "", DISABLE),
            (410, &[], "", DISABLE),
            (
                429,
                &[("retry-after", "65"), ("x-ratelimit-reset-after", "64.57")],
                r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#,
                wait(64_570),
            ),
            (429, &[("retry-after", "65")], "error code: 1015", wait(65_000)),
            (429, &[("x-ratelimit-reset-after", "1.5")], "", wait(1_500)),
            (502, &[], "", RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn telegram_says_a_description() {
    understands(
        Kind::Telegram,
        "api.telegram.org",
        json!({"bot_token": "12:AbCdEfGh", "chat_id": -100}),
        &[
            (200, &[], r#"{"ok": true, "result": {"message_id": 1}}"#, SENT),
            (400, &[], r#"{"ok": false, "error_code": 400, "description": "Bad Request: chat not found"}"#, DISABLE),
            (400, &[], r#"{"description": "Bad Request: group chat was upgraded to a supergroup chat"}"#, DISABLE),
            (400, &[], r#"{"description": "Bad Request: have no rights to send a message"}"#, DISABLE),
            (400, &[], r#"{"description": "Bad Request: not enough rights to send text messages to the chat"}"#, DISABLE),
            (400, &[], r#"{"description": "Bad Request: need administrator rights in the channel chat"}"#, DISABLE),
            (400, &[], r#"{"description": "Bad Request: can't parse entities: unsupported start tag"}"#, DEAD),
            (401, &[], r#"{"ok": false, "error_code": 401, "description": "Unauthorized"}"#, DISABLE),
            (403, &[], r#"{"description": "Forbidden: bot was blocked by the user"}"#, DISABLE),
            (404, &[], r#"{"ok": false, "error_code": 404, "description": "Not Found"}"#, DISABLE),
            (410, &[], "", DISABLE),
            (
                429,
                &[],
                r#"{"ok": false, "error_code": 429, "description": "Too Many Requests: retry after 14", "parameters": {"retry_after": 14}}"#,
                wait(14_000),
            ),
            (429, &[("retry-after", "3")], "", wait(3_000)),
            (502, &[], r#"{"ok": false, "error_code": 502, "description": "Bad Gateway"}"#, RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn pagerduty_says_a_status() {
    understands(
        Kind::Pagerduty,
        "events.pagerduty.com",
        json!({"integration_key": "0123456789abcdef0123456789abcdef"}),
        &[
            (202, &[], r#"{"status": "success", "message": "Event processed", "dedup_key": "k"}"#, SENT),
            (400, &[], r#"{"status": "invalid event", "message": "Event object is invalid"}"#, DEAD),
            (410, &[], "", DISABLE),
            (429, &[], r#"{"status": "throttle exceeded"}"#, RETRY),
            (500, &[], "", RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn teams_says_it_as_logic_apps_or_as_a_connector() {
    let url =
        "https://prod-01.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?sig=xyzxyzxyz";
    let failed = |code: &str| {
        let text = format!(
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {code} with ContextId tcid=0"
        );
        &*Box::leak(text.into_boxed_str())
    };
    understands(
        Kind::Teams,
        "prod-01.westeurope.logic.azure.com",
        json!({"webhook_url": url}),
        &[
            (202, &[], "", SENT),
            (200, &[], "1", SENT),
            (200, &[], failed("429"), RETRY),
            (200, &[("retry-after", "7")], failed("429"), wait(7_000)),
            (200, &[], failed("500"), RETRY),
            (200, &[], failed("413"), DEAD),
            (200, &[], failed("404"), DISABLE),
            (200, &[], failed("410"), DISABLE),
            (400, &[], r#"{"error": {"code": "TriggerInputSchemaMismatch"}}"#, DEAD),
            (401, &[], r#"{"error": {"code": "DirectApiInvalidAuthorizationScheme"}}"#, DISABLE),
            (403, &[], r#"{"error": {"code": "AuthorizationFailed"}}"#, DISABLE),
            (404, &[], r#"{"error": {"code": "WorkflowTriggerIsNotEnabled"}}"#, DISABLE),
            (410, &[], "", DISABLE),
            (413, &[], "", DEAD),
            (429, &[("retry-after", "5")], "", wait(5_000)),
            (502, &[], r#"{"error": {"code": "NoResponse"}}"#, RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn ntfy_says_a_status() {
    understands(
        Kind::Ntfy,
        "ntfy.test",
        json!({"url": "https://ntfy.test", "topic": "ops", "token": "tk_xyzxyzxyz"}),
        &[
            (200, &[], r#"{"id": "x", "event": "message", "topic": "ops"}"#, SENT),
            (400, &[], r#"{"code": 40024, "http": 400, "error": "invalid request: request body must be valid JSON"}"#, DEAD),
            (401, &[], r#"{"code": 40101, "http": 401, "error": "unauthorized"}"#, DISABLE),
            (403, &[], r#"{"code": 40301, "http": 403, "error": "forbidden"}"#, DISABLE),
            (404, &[], r#"{"code": 40401, "http": 404, "error": "page not found"}"#, DISABLE),
            (410, &[], "", DISABLE),
            (413, &[], r#"{"code": 41303, "http": 413, "error": "JSON body too large"}"#, DEAD),
            (429, &[], r#"{"code": 42901, "http": 429, "error": "limit reached: too many requests"}"#, RETRY),
            (507, &[], r#"{"code": 50701, "http": 507, "error": "cannot publish to UnifiedPush topic"}"#, RETRY),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_answer_may_be_one_later() {
    let vendor = Vendor::start("hooks.slack.com").await;
    let slack =
        channel(Kind::Slack, &json!({"webhook_url": "https://hooks.slack.com/services/T1/B1/xyzxyzxyz"}));
    // Closed without a word, in the middle of a line, and something that is no HTTP.
    for said in ["", "HTTP/1.1 200", "SSH-2.0-OpenSSH_9.2\r\n"] {
        *vendor.says.lock().unwrap() = said.as_bytes().to_vec();
        let answer = vendor.courier.deliver(&slack, &delivery()).await;
        assert_eq!((&answer.verdict, answer.code), (&RETRY, None), "{said}: {answer:?}");
        assert!(answer.error.is_some(), "{answer:?}");
    }
    // TLS with a certificate of another name.
    let discord =
        channel(Kind::Discord, &json!({"webhook_url": "https://discord.com/api/webhooks/1/xyzxyzxyz"}));
    let answer = vendor.courier.deliver(&discord, &delivery()).await;
    assert_eq!(answer.verdict, RETRY);
    assert!(answer.error.unwrap().contains("certificate"));
    // A receiver of none.
    let nobody = Guard::new(GuardOptions {
        egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
        connect_to: vec!["::127.0.0.1:1".parse().unwrap()],
        ..options()
    });
    let courier = Courier::new(nobody.unwrap(), Options::default()).unwrap();
    let answer = courier.deliver(&slack, &delivery()).await;
    assert_eq!(answer.verdict, RETRY);
    assert!(answer.error.unwrap().starts_with("cannot connect"));
}
