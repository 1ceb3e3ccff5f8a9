//! The log: an event a line, on standard error.

use std::any::Any;
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::LogFormat;

/// Starts logging. `RUST_LOG` sets the level; text is for terminals, JSON for everything else: one
/// flat object a line.
pub fn start(format: Option<LogFormat>) {
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    std::panic::set_hook(Box::new(panicked));
    tracing_subscriber::registry().with(level).with(lines.with_filter(FilterFn::new(is_fit))).init();
}

/// Says where a panic was, of whichever task.
fn panicked(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    tracing::error!(location, reason = reason(panic.payload()), "a task panicked");
}

/// Why it panicked, where those are words of the program alone: what was put together may quote the text that was
/// being handled, as the message about an index within a character does.
fn reason(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("withheld: it may quote what was handled")
}

/// Libraries trace what they send and receive, headers and statements included: below a warning they
/// are not heard, whatever `RUST_LOG` says.
fn is_fit(event: &Metadata<'_>) -> bool {
    event.target() == "klaxon" || event.target().starts_with("klaxon::") || *event.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_are_heard_from_warning_up() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_filter(FilterFn::new(is_fit));
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new("trace")).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!("ours");
            tracing::debug!(target: "hyper::proto", "authorization: hunter2");
            tracing::info!(target: "klaxonish", "hunter2");
            tracing::warn!(target: "hyper::proto", "theirs");
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("ours") && said.contains("theirs") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_panic_quotes_nothing_that_was_handled() {
        let caught = |panics: fn(&str)| std::panic::catch_unwind(|| panics("geheim\u{fc}1234")).unwrap_err();
        for panics in [
            |text: &str| drop(text[..7].to_owned()),
            |text: &str| assert!(text.parse::<u8>().map_err(|_| text.to_owned()).expect("a number") > 0),
            |text: &str| panic!("no {text}"),
        ] {
            assert_eq!(reason(&*caught(panics)), "withheld: it may quote what was handled");
        }
        assert_eq!(reason(&*caught(|_| panic!("the head is gone"))), "the head is gone");
    }
}
