//! The page: one document with all it needs in it, which says with its policy that it needs nothing else.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minijinja::value::{Serde, Value as Shown};
use minijinja::{Environment, context};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::observe::View;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The decades of seconds that the latencies' chart shows: 1 ms to 1000 s.
const DECADES: (f64, f64) = (-3.0, 3.0);

/// What renders the page.
pub struct Page {
    templates: Environment<'static>,
    policy: String,
}

/// Bars of how many attempts there were; heights in percent.
#[derive(Serialize)]
struct Attempts {
    top: i64,
    sent: i64,
    failed: i64,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    x: usize,
    title: String,
    sent: f64,
    sent_at: f64,
    failed: f64,
    failed_at: f64,
}

/// Bars of how long deliveries took, on a logarithmic scale.
#[derive(Serialize)]
struct Latency {
    bars: Vec<Span>,
}

#[derive(Serialize)]
struct Span {
    x: usize,
    title: String,
    p50: f64,
    p50_at: f64,
    range: f64,
    p99_at: f64,
}

impl Page {
    /// Reads the template.
    ///
    /// # Errors
    /// It does not parse.
    pub fn new() -> anyhow::Result<Self> {
        let mut templates = Environment::new();
        // By its name it is HTML, and whatever is written into it is escaped.
        templates.add_template("page.html", include_str!("page.html"))?;
        templates.add_filter("count", count);
        templates.add_filter("age", age);
        templates.add_filter("took", took);
        let digest = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            digest(STYLE),
            digest(SCRIPT)
        );
        Ok(Self { templates, policy })
    }

    /// The Content-Security-Policy: nothing but the style and the script that are in the page.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Renders it.
    ///
    /// # Errors
    /// The template does not fit what it is given.
    pub fn render(&self, views: &[View]) -> anyhow::Result<String> {
        let warned: usize = views.iter().map(|view| warnings(view).len()).sum();
        let away = views.iter().filter(|view| view.glance.is_err()).count();
        let verdict = match (away, warned) {
            (0, 0) => "all is well".to_owned(),
            (0, 1) => "1 warning".to_owned(),
            (0, many) => format!("{many} warnings"),
            _ => "no answer from Postgres".to_owned(),
        };
        let shown: Vec<Shown> = views.iter().map(show).collect();
        Ok(self.templates.get_template("page.html")?.render(context! {
            verdict,
            version => env!("CARGO_PKG_VERSION"),
            style => Shown::from_safe_string(STYLE.to_owned()),
            script => Shown::from_safe_string(SCRIPT.to_owned()),
            views => shown,
        })?)
    }
}

fn warnings(view: &View) -> Vec<&str> {
    let said = view.glance.as_ref().ok().and_then(|glance| glance["status"]["warnings"].as_str());
    said.unwrap_or_default().split("; ").filter(|warning| !warning.is_empty()).collect()
}

fn show(view: &View) -> Shown {
    let glance = match &view.glance {
        Err(error) => return context! { database => view.database.as_str(), error => error.as_str() },
        Ok(glance) => glance,
    };
    let (history, history_error) = match &view.history {
        Ok(history) => (Some(history), None),
        Err(error) => (None, Some(format!("Too much to be counted here: {error}"))),
    };
    let spans = history.and_then(|history| history["spans"].as_array());
    context! {
        database => view.database.as_str(),
        warnings => warnings(view).into_iter().map(str::to_owned).collect::<Vec<_>>(),
        attempts => spans.map(|spans| Serde(attempts(spans))),
        latency => spans.map(|spans| Serde(latency(spans))),
        p50 => history.and_then(|history| history["p50"].as_f64()),
        p99 => history.and_then(|history| history["p99"].as_f64()),
        history_error,
        ..Shown::from(Serde(glance))
    }
}

fn attempts(spans: &[Value]) -> Attempts {
    let number = |span: &Value, key: &str| span[key].as_i64().unwrap_or_default();
    let total = |key: &str| spans.iter().map(|span| number(span, key)).sum();
    let highest = spans.iter().map(|span| number(span, "sent") + number(span, "failed")).max();
    let top = highest.unwrap_or_default().max(1);
    let bars = spans.iter().enumerate().map(|(index, span)| {
        let (sent, failed) = (number(span, "sent"), number(span, "failed"));
        // A single failure among thousands is to be seen.
        let height = |count: i64| match count {
            0 => 0.0,
            count => tenths((count as f64 / top as f64 * 100.0).max(1.5)),
        };
        let (sent_height, failed_height) = (height(sent), height(failed));
        Bar {
            x: index * 10 + 1,
            title: format!(
                "{} UTC: {} sent, {} failed",
                span["at"].as_str().unwrap_or_default(),
                thousands(sent),
                thousands(failed)
            ),
            sent: sent_height,
            sent_at: tenths(100.0 - sent_height),
            failed: failed_height,
            failed_at: tenths((100.0 - sent_height - failed_height).max(0.0)),
        }
    });
    Attempts { top, sent: total("sent"), failed: total("failed"), bars: bars.collect() }
}

fn latency(spans: &[Value]) -> Latency {
    let bars = spans.iter().enumerate().filter_map(|(index, span)| {
        let (p50, p99) = (span["p50"].as_f64()?, span["p99"].as_f64()?);
        let height = |seconds: f64| {
            let decade = seconds.max(f64::MIN_POSITIVE).log10();
            tenths(((decade - DECADES.0) / (DECADES.1 - DECADES.0) * 100.0).clamp(1.5, 100.0))
        };
        let (low, high) = (height(p50), height(p99));
        Some(Span {
            x: index * 10 + 1,
            title: format!(
                "{} UTC: p50 {}, p99 {}",
                span["at"].as_str().unwrap_or_default(),
                duration(p50),
                duration(p99)
            ),
            p50: low,
            p50_at: tenths(100.0 - low),
            range: tenths(high - low),
            p99_at: tenths(100.0 - high),
        })
    });
    Latency { bars: bars.collect() }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A count, which `klaxon.status()` gives as text.
fn count(value: &Shown) -> String {
    let number = match value.as_str() {
        Some(text) => text.parse().ok(),
        None => i64::try_from(value.clone()).ok(),
    };
    number.map_or_else(|| "–".to_owned(), thousands)
}

fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whole seconds, roughly.
fn age(value: &Shown) -> String {
    let Ok(seconds) = i64::try_from(value.clone()) else { return "–".to_owned() };
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Seconds of which the thousandth may count.
fn took(value: &Shown) -> String {
    f64::try_from(value.clone()).map_or_else(|_| "–".to_owned(), duration)
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..0.001 => "<1 ms".to_owned(),
        ..1.0 => format!("{:.0} ms", seconds * 1000.0),
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(glance: Result<Value, String>, history: Result<Value, String>) -> View {
        View { database: "db.example:5432/app".into(), glance, history }
    }

    #[test]
    fn whatever_is_shown_is_escaped() {
        let evil = "<script>alert(1)</script>\"'";
        let glance = json!({
            "at": evil, "head": evil, "status": {"pending": "1", "warnings": evil, "wakeup": evil},
            "workers": [{"host": evil, "version": evil, "shards": 1, "silent": 0, "up": 1}],
            "channels": [{"name": evil, "kind": evil, "scope": evil, "state": evil, "error": evil, "pending": 0, "dead": 0}],
            "pending": [{"channel": evil, "kind": evil, "deliveries": 1, "age": 1, "next": 1}],
            "failures": [{"channel": evil, "type": evil, "attempt": 1, "status": evil, "error": evil, "age": 1, "code": null}],
        });
        let page = Page::new().unwrap();
        for view in [view(Ok(glance), Err(evil.into())), view(Err(evil.into()), Err(evil.into()))] {
            let html = page.render(&[view]).unwrap();
            assert_eq!(html.matches("<script").count(), 1, "its own: {html}");
            assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("\"'"), "{html}");
        }
    }

    #[test]
    fn bars_fill_the_plot_and_small_ones_are_seen() {
        let spans = [
            json!({"at": "10:00", "sent": 9_990, "failed": 10}),
            json!({"at": "10:10", "sent": 0, "failed": 0}),
        ];
        let attempts = attempts(&spans);
        assert_eq!((attempts.top, attempts.sent, attempts.failed), (10_000, 9_990, 10));
        assert!(attempts.bars[0].failed > 1.0 && attempts.bars[0].failed_at >= 0.0);
        assert_eq!(attempts.bars[0].title, "10:00 UTC: 9,990 sent, 10 failed");
        assert_eq!((attempts.bars[1].sent, attempts.bars[1].failed), (0.0, 0.0));
        let spans = [
            json!({"at": "10:00", "p50": 0.01, "p99": 1.0}),
            json!({"at": "10:10", "p50": null, "p99": null}),
        ];
        let latency = latency(&spans);
        assert_eq!(latency.bars.len(), 1);
        assert_eq!((latency.bars[0].p50, latency.bars[0].p99_at, latency.bars[0].range), (16.7, 50.0, 33.3));
    }

    #[test]
    fn numbers_read_well() {
        for (seconds, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (-3, "0 s")]
        {
            assert_eq!(age(&Shown::from(seconds)), text);
        }
        for (seconds, text) in
            [(0.0004, "<1 ms"), (0.0123, "12 ms"), (1.26, "1.3 s"), (61.0, "61 s"), (600.0, "10 min")]
        {
            assert_eq!(took(&Shown::from(seconds)), text);
        }
        assert_eq!(count(&Shown::from("1234567")), "1,234,567");
        assert_eq!((count(&Shown::from(999)), count(&Shown::from(()))), ("999".into(), "–".into()));
    }
}
