//! What a mail server's replies mean.

use super::{Answer, Means, Verdict};
use crate::form::{Form, Refusal, Sent, Step};

/// Recipients named in an error.
const NAMED: usize = 10;

/// A row of a table of a mail server's refusals.
#[derive(Debug)]
pub struct MailRow {
    steps: &'static [Step],
    /// Whether it is one that will be said again.
    permanent: bool,
    means: Means,
}

/// What a mail server's refusals mean, unless a kind says otherwise. 4yz may pass (RFC 5321 section
/// 4.2.1), and so may what a server says before it was told of any mail: it speaks of itself or of
/// whoever logs in. 5yz to the sender, the recipients or the content will be said again.
pub static MAIL: [MailRow; 2] = [
    MailRow::of(&[Step::Sender, Step::Recipient, Step::Content], true, Means::Dead),
    MailRow::of(
        &[Step::Connect, Step::Login, Step::Sender, Step::Recipient, Step::Content],
        false,
        Means::Retry(&[]),
    ),
];

impl MailRow {
    /// Of refusals for good, or of all.
    pub(crate) const fn of(steps: &'static [Step], permanent: bool, means: Means) -> Self {
        Self { steps, permanent, means }
    }

    /// Whether it is this row that a refusal fits.
    #[must_use]
    pub fn fits(&self, refusal: &Refusal) -> bool {
        self.steps.contains(&refusal.step) && (refusal.permanent || !self.permanent)
    }
}

/// What a mail server's answer means to a kind. A mail has arrived where it did for some of its
/// recipients and none is yet to have it.
#[must_use]
pub fn read_mail(form: &dyn Form, sent: Sent) -> Answer {
    match sent {
        Sent::Accepted { code, reached, refused, deferred } => {
            let refused = listed(&refused, |name, code| format!("{name} refused with SMTP {code}"));
            let waiting = listed(&deferred, |name, code| format!("{name}: SMTP {code}"));
            let (Some(waiting), Some(first)) = (waiting, deferred.into_iter().next()) else {
                let error = refused.map(|refused| format!("not to all recipients: {refused}"));
                return Answer { verdict: Verdict::Sent, code: Some(code), error, body: None };
            };
            let others = if reached == 1 { "1 other".into() } else { format!("{reached} others") };
            let mut error = format!("deferred for {waiting}; sent to {others}");
            error.extend(refused.map(|refused| format!("; {refused}")));
            Answer { code: Some(first.code), body: Some(first.said), ..Answer::retry(error) }
        }
        Sent::Refused(refusal) => {
            let row = form.mail_answers().iter().chain(&MAIL).find(|row| row.fits(&refusal));
            let verdict = match row.map(|row| &row.means) {
                Some(Means::Dead) => Verdict::Dead { disable: false },
                Some(Means::Disable) => Verdict::Dead { disable: true },
                _ => Verdict::Retry { after: None },
            };
            let error = match &refusal.recipient {
                Some(recipient) => format!("SMTP {} to the recipient {recipient}", refusal.code),
                None => format!("SMTP {} to {}", refusal.code, refusal.step),
            };
            Answer { verdict, code: Some(refusal.code), error: Some(error), body: Some(refusal.said) }
        }
        Sent::Failed(problem) => Answer::retry(problem),
    }
}

/// Who was refused, and how.
fn listed(refusals: &[Refusal], say: impl Fn(&str, i32) -> String) -> Option<String> {
    let name = |refusal: &Refusal| say(refusal.recipient.as_deref().unwrap_or("a recipient"), refusal.code);
    let mut list = refusals.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if refusals.len() > NAMED {
        list.push_str(&format!(" and {} more", refusals.len() - NAMED));
    }
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error and the rest of an answer to a mail that reached so many.
    fn told(reached: usize, refused: &[(&str, i32)], deferred: &[(&str, i32)]) -> (Answer, String) {
        let refusals = |list: &[(&str, i32)]| -> Vec<Refusal> {
            let refusal = |&(name, code): &(&str, i32)| Refusal {
                step: Step::Recipient,
                recipient: Some(format!("{name}@example.com")),
                code,
                permanent: code >= 500,
                said: format!("to {name}"),
            };
            list.iter().map(refusal).collect()
        };
        let (refused, deferred) = (refusals(refused), refusals(deferred));
        let config = serde_json::json!({"to_addrs": ["ann@example.com"]});
        let email =
            crate::config::open(crate::kind::Kind::Email, &config, &Default::default()).unwrap().target;
        let answer = read_mail(&*email, Sent::Accepted { code: 250, reached, refused, deferred });
        let error = answer.error.clone().unwrap_or_default();
        (answer, error)
    }

    #[test]
    fn who_does_not_have_a_mail_is_named() {
        let (all, said) = told(2, &[], &[]);
        assert_eq!(
            (all, said.as_str()),
            (Answer { verdict: Verdict::Sent, code: Some(250), error: None, body: None }, "")
        );
        let (most, said) = told(1, &[("bob", 550), ("cleo", 553)], &[]);
        assert_eq!((most.verdict, most.code, most.body), (Verdict::Sent, Some(250), None));
        assert_eq!(
            said,
            "not to all recipients: bob@example.com refused with SMTP 550, cleo@example.com refused with SMTP 553"
        );
        let (some, said) = told(2, &[], &[("bob", 451)]);
        assert_eq!(some.verdict, Verdict::Retry { after: None });
        assert_eq!((some.code, some.body.as_deref()), (Some(451), Some("to bob")));
        assert_eq!(said, "deferred for bob@example.com: SMTP 451; sent to 2 others");
        let (_, said) = told(1, &[("dan", 550)], &[("bob", 451), ("cleo", 552)]);
        assert_eq!(
            said,
            "deferred for bob@example.com: SMTP 451, cleo@example.com: SMTP 552; sent to 1 other; dan@example.com refused with SMTP 550"
        );
        let many: Vec<(&str, i32)> = (0..12).map(|_| ("x", 550)).collect();
        let (_, said) = told(1, &many, &[]);
        assert!(said.matches("x@example.com").count() == NAMED && said.ends_with("550 and 2 more"), "{said}");
    }
}
