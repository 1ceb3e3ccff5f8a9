//! The demo's terminal: aligned, calm, coloured only where somebody looks.

use std::time::Instant;

use anstyle::{AnsiColor, Style};

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();

/// How a line is meant.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// A failure that belongs to the story.
    Warn,
    /// Not as it should be.
    Bad,
}

/// Where the story is told, and what of it was seen.
pub struct Stage {
    began: Instant,
    failed: Vec<String>,
    seen: usize,
}

impl Stage {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), failed: Vec::new(), seen: 0 }
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        anstream::println!("\n{BOLD}{title}{BOLD:#}");
    }

    /// A line: when, who, what.
    pub fn line(&self, tone: Tone, who: &str, what: &str) {
        let style = match tone {
            Tone::Plain => Style::new(),
            Tone::Good => GOOD,
            Tone::Warn => WARN,
            Tone::Bad => BAD,
        };
        let seconds = self.began.elapsed().as_secs_f64();
        anstream::println!("{DIM}{seconds:>7.2} s{DIM:#}  {who:<14}{style}{what}{style:#}");
    }

    /// Something the demo promises: noted, and shown where it was not so.
    pub fn check(&mut self, what: &str, holds: bool) {
        self.seen += 1;
        if !holds {
            self.line(Tone::Bad, "not observed", what);
            self.failed.push(what.to_owned());
        }
    }

    /// The last word: whether everything was observed.
    #[must_use]
    pub fn finish(&self) -> bool {
        let seconds = self.began.elapsed().as_secs_f64();
        if self.failed.is_empty() {
            anstream::println!("\n{GOOD}All {} observations made, in {seconds:.1} s.{GOOD:#}", self.seen);
        } else {
            anstream::println!("\n{BAD}{} of {} observations missing:{BAD:#}", self.failed.len(), self.seen);
            for what in &self.failed {
                anstream::println!("  {what}");
            }
        }
        self.failed.is_empty()
    }
}
