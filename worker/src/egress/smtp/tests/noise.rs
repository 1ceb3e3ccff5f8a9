//! A server that says anything at all.

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;

/// Says one of these after each thing it is told, whatever that was, and hangs up after the last.
async fn saying(replies: Vec<Vec<u8>>) -> Mailer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for reply in replies {
            if stream.write_all(&reply).await.is_err() || stream.read(&mut [0; 4096]).await.is_err() {
                return;
            }
        }
    });
    Mailer::new(Arc::new(
        Guard::new(GuardOptions {
            egress_allow: vec!["127.0.0.1/32".parse().unwrap()],
            connect_to: vec![format!("::127.0.0.1:{port}").parse().unwrap()],
            http_timeout: Duration::from_millis(200),
            ..options()
        })
        .unwrap(),
    ))
    .unwrap()
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[2345][0-9]{2}[ -][ -~]{0,20}\r\n".prop_map(String::into_bytes),
        "(250-[A-Z0-9 ]{0,12}\r\n){0,3}250 [A-Z]{1,8}\r\n".prop_map(String::into_bytes),
        "354 go\r\n".prop_map(String::into_bytes),
        "[0-9 -]{0,6}\\PC{0,20}\r?\n?".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Nothing but a reply that takes it makes a mail a sent one, and nothing makes the worker panic.
    #[test]
    fn only_what_takes_a_mail_says_it_was_taken(replies in proptest::collection::vec(reply(), 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = replies.clone();
        let sent = runtime.block_on(async { saying(replies).await.send(&clear(), mail()).await });
        let taken = said.iter().filter(|reply| reply.first() == Some(&b'2')).count();
        // The greeting, EHLO, MAIL, a recipient and the content, with the 354 between.
        prop_assert!(!matches!(sent, Sent::Accepted { .. }) || taken >= 4, "{sent:?} {said:?}");
    }
}

#[tokio::test]
async fn a_greeting_that_does_not_read_is_an_error_and_no_panic() {
    let replies = ["220 go\r\n", "250-mx\r\n250-   \r\n250 END\r\n"].map(|reply| reply.as_bytes().to_vec());
    let sent = saying(replies.to_vec()).await.send(&clear(), mail()).await;
    assert!(format!("{sent:?}").contains("does not read"), "{sent:?}");
}
