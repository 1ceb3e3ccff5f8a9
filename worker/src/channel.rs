//! Sends deliveries: renders them in their channel's form, passes them through the egress guard and
//! reads the answer.

use std::sync::Arc;

pub use klaxon_channel::answer::{Answer, Verdict};
use klaxon_channel::answer::{read, read_mail};
pub use klaxon_channel::delivery::{Channel, DIGEST, Delivery, Options, Project, Smtp};
use klaxon_channel::form::Request;
use klaxon_channel::message::Message;

use crate::egress::{Guard, Http, Mailer};

mod sanitise;

pub use sanitise::strike;

/// Sends deliveries.
#[derive(Debug)]
pub struct Courier {
    options: Options,
    http: Http,
    mailer: Mailer,
}

impl Courier {
    /// Sends through a guard.
    ///
    /// # Errors
    /// Where the operator's certificates do not read.
    pub fn new(guard: Guard, options: Options) -> anyhow::Result<Self> {
        let guard = Arc::new(guard);
        Ok(Self { options, http: Http::new(Arc::clone(&guard))?, mailer: Mailer::new(guard)? })
    }

    /// Makes one attempt.
    pub async fn deliver(&self, channel: &Channel, delivery: &Delivery) -> Answer {
        let (target, rules) = match &channel.settings {
            Ok(settings) => (&settings.target, &settings.delivery),
            Err(problem) => return Answer::dead(format!("the channel's config does not open: {problem}")),
        };
        let new = || Message::new(channel, delivery, &self.options);
        // A template over a large payload may take its time: this thread's, and not that of what else it would do.
        let message = if rules.template.is_some() { tokio::task::block_in_place(new) } else { new() };
        let answer = match target.render(&message) {
            Err(problem) => Answer::dead(problem),
            Ok(Request::Http(post)) => match self.http.post(post).await {
                Ok(reply) => read(&**target, &reply),
                Err(error) => Answer::retry(error.to_string()),
            },
            Ok(Request::Mail { server, mail }) => {
                // Apart: a mail's conversation is large, and a request should not carry it along.
                read_mail(&**target, Box::pin(self.mailer.send(&server, *mail)).await)
            }
        };
        sanitise::answer(answer, &**target, self.options.smtp.as_ref())
    }
}

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod mail_answer_tests;
