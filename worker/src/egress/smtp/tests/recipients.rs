//! Some of a mail's recipients have it before others do.

use super::*;

fn sent(reached: usize, refused: &[Refusal], deferred: &[Refusal]) -> Sent {
    Sent::Accepted { code: 250, reached, refused: refused.to_vec(), deferred: deferred.to_vec() }
}

impl Told {
    /// Whom it was asked to take mails for since the last time, and how many it took the content of.
    fn asked(&self) -> (String, usize) {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        let name = |line: &String| Some(line.strip_prefix("RCPT TO:<")?.split_once('@')?.0.to_owned());
        let names: Vec<String> = lines.iter().filter_map(name).collect();
        (names.join(" "), lines.iter().filter(|line| *line == ".").count())
    }
}

/// A server that says something else on each call, and a mailer that calls anew for each mail.
async fn calls(scripts: Vec<Script>) -> (Arc<Told>, impl AsyncFn(&[&str]) -> Sent) {
    let (told, mailer) = serve(scripts).await;
    (told, async move |to: &[&str]| {
        let sent = mailer.send(&clear(), mail_to("once", to)).await;
        mailer.idle.lock().unwrap().sessions.clear();
        sent
    })
}

#[tokio::test]
async fn recipients_refused_for_good_keep_nothing_from_the_others() {
    let script = &[("RCPT TO:<ann", "550 nobody\r\n"), ("RCPT TO:<dan", "553 no such name\r\n")] as Script;
    let (told, mailer) = serve(vec![script]).await;
    let expected = sent(2, &[of("ann", 550, "nobody"), of("dan", 553, "no such name")], &[]);
    for _ in 0..2 {
        // It is over, so that another mail of this name is a mail to all.
        let mail = mail_to("once", &["ann", "bob", "cleo", "dan"]);
        assert_eq!(mailer.send(&clear(), mail).await, expected);
        assert_eq!(told.asked(), ("ann bob cleo dan".into(), 1));
    }
    assert_eq!(told.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_next_attempt_is_made_to_those_who_do_not_have_it_yet() {
    let (told, send) = calls(vec![
        &[("RCPT TO:<bob", "451 later\r\n"), ("RCPT TO:<dan", "550 nobody\r\n")],
        &[("RCPT TO:<bob", "450 much later\r\n")],
        &[],
    ])
    .await;
    let to = ["ann", "bob", "cleo", "dan"];
    let nobody = [of("dan", 550, "nobody")];
    assert_eq!(send(&to).await, sent(2, &nobody, &[of("bob", 451, "later")]));
    assert_eq!(told.asked(), ("ann bob cleo dan".into(), 1));
    assert_eq!(send(&to).await, sent(2, &nobody, &[of("bob", 450, "much later")]));
    assert_eq!(told.asked(), ("bob".into(), 0));
    assert_eq!(send(&to).await, sent(3, &nobody, &[]));
    assert_eq!(told.asked(), ("bob".into(), 1));
    // Nobody waits for it any more: nothing is remembered.
    assert_eq!(send(&to).await, sent(4, &[], &[]));
}

#[tokio::test]
async fn who_is_refused_for_good_in_the_end_leaves_a_mail_that_was_sent() {
    let (told, send) =
        calls(vec![&[("RCPT TO:<bob", "451 later\r\n")], &[("RCPT TO:<bob", "550 nobody\r\n")]]).await;
    assert_eq!(send(&["ann", "bob"]).await, sent(1, &[], &[of("bob", 451, "later")]));
    told.asked();
    assert_eq!(send(&["ann", "bob"]).await, sent(1, &[of("bob", 550, "nobody")], &[]));
    assert_eq!(told.asked(), ("bob".into(), 0));
}

#[tokio::test]
async fn too_many_recipients_are_taken_in_turns() {
    let full = |said: &str| [of("cleo", said[..3].parse().unwrap(), "full"), of("dan", 452, "full")];
    for (said, script) in [
        ("452", &[("RCPT TO:<cleo", "452 full\r\n"), ("RCPT TO:<dan", "452 full\r\n")] as Script),
        ("552", &[("RCPT TO:<cleo", "552 full\r\n"), ("RCPT TO:<dan", "452 full\r\n")]),
    ] {
        let (told, send) = calls(vec![script, &[]]).await;
        let to = ["ann", "bob", "cleo", "dan"];
        assert_eq!(send(&to).await, sent(2, &[], &full(said)));
        told.asked();
        assert_eq!(send(&to).await, to_all(4));
        assert_eq!(told.asked(), ("cleo dan".into(), 1));
    }
}

#[tokio::test]
async fn a_mail_that_was_not_taken_reached_nobody() {
    for script in [
        &[("RCPT TO:<bob", "451 later\r\n"), (".", "451 not now\r\n")] as Script,
        &[("RCPT TO:<bob", "451 later\r\n"), (".", "554 spam\r\n")],
        &[("RCPT TO:<bob", "451 later\r\n"), (".", "")],
        &[("RCPT TO:<bob", "451 later\r\n"), ("DATA", "451 not now\r\n")],
        &[("RCPT TO:<bob", "421 bye\r\n")],
    ] {
        let (told, send) = calls(vec![script, &[]]).await;
        assert!(!matches!(send(&["ann", "bob"]).await, Sent::Accepted { .. }), "{script:?}");
        told.asked();
        assert_eq!(send(&["ann", "bob"]).await, to_all(2));
        assert_eq!(told.asked(), ("ann bob".into(), 1));
    }
    // And one that was not taken for the rest was still taken for those who have it.
    let (told, send) =
        calls(vec![&[("RCPT TO:<bob", "451 later\r\n")], &[(".", "451 not now\r\n")], &[]]).await;
    assert_eq!(send(&["ann", "bob"]).await, sent(1, &[], &[of("bob", 451, "later")]));
    assert_eq!(send(&["ann", "bob"]).await, Sent::Refused(refusal(Step::Content, 451, "not now")));
    told.asked();
    assert_eq!(send(&["ann", "bob"]).await, to_all(2));
    assert_eq!(told.asked(), ("bob".into(), 1));
}

#[tokio::test]
async fn a_session_carries_other_mails_between_two_attempts() {
    let (told, mailer) = serve(vec![&[("RCPT TO:<bob", "451 later\r\n")], &[]]).await;
    let later = [of("bob", 451, "later")];
    assert_eq!(mailer.send(&clear(), mail()).await, sent(1, &[], &later));
    assert_eq!(mailer.send(&clear(), mail_to("other", &["cleo"])).await, to_all(1));
    assert_eq!((told.calls.load(Ordering::SeqCst), told.asked()), (1, ("ann bob cleo".into(), 2)));
    assert_eq!(mailer.send(&clear(), mail()).await, sent(1, &[], &later));
    // What was begun for nobody is not gone on with: the next mail is another session's.
    assert_eq!(mailer.send(&clear(), mail()).await, to_all(2));
    assert_eq!((told.calls.load(Ordering::SeqCst), told.asked()), (2, ("bob bob".into(), 1)));
}

#[tokio::test]
async fn whoever_has_it_is_not_asked_for_when_the_others_are_taken_off_the_list() {
    let (told, send) = calls(vec![&[("RCPT TO:<bob", "451 later\r\n")]]).await;
    assert_eq!(send(&["ann", "bob"]).await, sent(1, &[], &[of("bob", 451, "later")]));
    assert_eq!(send(&["ann"]).await, to_all(1));
    assert_eq!(told.calls.load(Ordering::SeqCst), 1);
}
