//! Each row of the tables of a mail server's refusals, said at the step it is about.

use std::collections::BTreeSet;

use klaxon_channel::answer::{MAIL, Verdict};
use klaxon_channel::delivery::{Options, Smtp};
use klaxon_channel::form::{Login, Refusal, Server, Step};
use klaxon_channel::kind::Kind;
use serde_json::json;

use super::Courier;
use super::answer_tests::{channel, delivery};
use crate::egress::Guard;
use crate::egress::smtp::tests::scripted;

/// Who has the server: the channel, or the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Channels,
    Workers,
}
use Whose::{Channels, Workers};

#[tokio::test]
async fn a_mail_servers_no_means_what_it_was_said_to() {
    let retry = || Verdict::Retry { after: None };
    let (dead, disable) = (|| Verdict::Dead { disable: false }, || Verdict::Dead { disable: true });
    let mut decided = BTreeSet::new();
    for (whose, step, after, reply, verdict) in [
        (Channels, Step::Connect, "", "554 no\r\n", retry()),
        (Channels, Step::Connect, "", "421 busy\r\n", retry()),
        (Channels, Step::Connect, "STARTTLS", "454 no TLS now\r\n", retry()),
        (Channels, Step::Login, "AUTH", "454 later\r\n", retry()),
        (Channels, Step::Login, "AUTH", "535 wrong\r\n", disable()),
        (Workers, Step::Login, "AUTH", "535 wrong\r\n", retry()),
        (Channels, Step::Sender, "MAIL", "451 later\r\n", retry()),
        (Channels, Step::Sender, "MAIL", "550 not you\r\n", dead()),
        (Workers, Step::Sender, "MAIL", "550 not you\r\n", dead()),
        (Channels, Step::Recipient, "RCPT", "450 greylisted\r\n", retry()),
        (Channels, Step::Recipient, "RCPT", "552 too many\r\n", retry()),
        (Channels, Step::Recipient, "RCPT", "550 unknown\r\n", dead()),
        (Channels, Step::Content, "DATA", "452 full\r\n", retry()),
        (Channels, Step::Content, "DATA", "554 no\r\n", dead()),
        (Channels, Step::Content, ".", "451 later\r\n", retry()),
        (Channels, Step::Content, ".", "554 spam\r\n", dead()),
    ] {
        let (_, guard, _ca) = scripted(vec![Box::leak(Box::new([(after, reply)]))]).await;
        let options = Options {
            smtp: (whose == Workers).then(|| Smtp {
                server: Server {
                    host: "mail.test".into(),
                    port: 587,
                    tls: true,
                    implicit: None,
                    login: Some(Login { user: "ann".into(), pass: "s3cret".into() }),
                },
                from: Some("k@example.com".into()),
                from_name: "klaxon".into(),
            }),
            site_url: None,
        };
        let courier = Courier::new(Guard::new(guard).unwrap(), options).unwrap();
        let config = match whose {
            Workers => json!({"to_addrs": ["ann@example.com"]}),
            Channels => json!({
                "smtp_host": "mail.test", "smtp_user": "ann", "smtp_pass": "s3cret", "from_addr": "k@example.com",
                "to_addrs": ["ann@example.com"]
            }),
        };
        let channel = channel(Kind::Email, &config);
        let answer = courier.deliver(&channel, &delivery()).await;
        let code: i32 = reply[..3].parse().unwrap();
        assert_eq!(
            (&answer.verdict, answer.code),
            (&verdict, Some(code)),
            "{whose:?} {step} {reply} {answer:?}"
        );
        let permanent = code >= 500 && code != 552;
        let refusal = Refusal { step, recipient: None, code, permanent, said: String::new() };
        let own = channel.settings.as_ref().unwrap().target.mail_answers();
        let row = own.iter().chain(&MAIL).position(|row| row.fits(&refusal)).unwrap();
        decided.insert((own.len() <= row, if own.len() <= row { row - own.len() } else { row }));
    }
    let all = [(false, 0)].into_iter().chain((0..MAIL.len()).map(|row| (true, row)));
    assert_eq!(decided, all.collect(), "every row decided");
}
