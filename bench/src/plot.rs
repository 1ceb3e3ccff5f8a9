//! Plots as SVG: bars that compare, and lines over time or size. Text is text, colours differ in brightness too,
//! and the paper is white, so that it reads on a page of any colour.

use std::fmt::Write as _;

use crate::report::{figure, spread};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 190.0;
const BAR: f64 = 26.0;
const HEIGHT: f64 = 320.0;
/// The product's first, so that it is the same in all plots.
const COLOURS: [&str; 6] = ["#0b6e4f", "#8d99ae", "#d17a22", "#3d5a98", "#a23b5f", "#5c5470"];
const MARGIN: f64 = 60.0;

/// A plot.
#[derive(Debug)]
pub struct Plot {
    pub title: String,
    body: String,
    height: f64,
}

/// A line: its name, and the points in the order of x.
pub type Line = (String, Vec<(f64, f64)>);

impl Plot {
    /// A bar for each name: the median, with a whisker from the least to the most.
    pub fn bars(title: &str, unit: &str, bars: Vec<(String, Vec<f64>)>) -> Self {
        let bars: Vec<_> = bars.into_iter().map(|(name, values)| (name, spread(&values))).collect();
        let most = bars.iter().map(|(_, (_, _, most))| *most).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABELS - 90.0) / most;
        let mut body = heading(title, unit);
        for (at, (name, (least, middle, most))) in bars.iter().enumerate() {
            let top = 54.0 + at as f64 * (BAR + 8.0);
            let colour = if name == "pg_klaxon" { COLOURS[0] } else { COLOURS[1] };
            let centre = top + BAR / 2.0;
            text(&mut body, LABELS - 8.0, centre + 4.0, "end", name);
            rectangle(&mut body, (LABELS, top), (middle * scale, BAR), colour);
            line(
                &mut body,
                (LABELS + least * scale, centre),
                (LABELS + most * scale, centre),
                "#1b1b1b",
                1.5,
            );
            text(&mut body, LABELS + most * scale + 8.0, centre + 4.0, "start", &figure(*middle));
        }
        Self { title: title.to_owned(), body, height: 64.0 + bars.len() as f64 * (BAR + 8.0) }
    }

    /// Lines over what grows by powers of ten.
    pub fn growth(title: &str, x: &str, y: &str, lines: &[Line]) -> Self {
        Self::lines(title, x, y, lines, |x| x.max(1.0).log10(), ticks_of_ten)
    }

    /// Lines over time, or whatever grows evenly.
    pub fn course(title: &str, x: &str, y: &str, lines: &[Line]) -> Self {
        Self::lines(title, x, y, lines, |x| x, even_ticks)
    }

    fn lines(
        title: &str,
        x: &str,
        y: &str,
        lines: &[Line],
        along: fn(f64) -> f64,
        ticks: fn(f64, f64) -> Vec<f64>,
    ) -> Self {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let first = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let last = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
        let top = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
        let (left, right, bottom) = (MARGIN + 20.0, WIDTH - 30.0, HEIGHT - 48.0);
        let width = (along(last) - along(first)).max(f64::MIN_POSITIVE);
        let at_x = |value: f64| left + (along(value) - along(first)) / width * (right - left);
        let at_y = |value: f64| bottom - value / top * (bottom - MARGIN);
        let mut body = heading(title, y);
        for tick in even_ticks(0.0, top) {
            line(&mut body, (left, at_y(tick)), (right, at_y(tick)), "#dddddd", 1.0);
            text(&mut body, left - 8.0, at_y(tick) + 4.0, "end", &short(tick));
        }
        for tick in ticks(first, last) {
            line(&mut body, (at_x(tick), bottom), (at_x(tick), bottom + 5.0), "#1b1b1b", 1.0);
            text(&mut body, at_x(tick), bottom + 20.0, "middle", &short(tick));
        }
        text(&mut body, (left + right) / 2.0, bottom + 38.0, "middle", x);
        for (at, (name, points)) in lines.iter().enumerate() {
            let colour = COLOURS[[0, 2, 3, 4, 5, 1][at % 6]];
            let path: Vec<String> =
                points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y))).collect();
            // Writing to a string does not fail, here and below.
            let _ = writeln!(
                body,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                path.join(" ")
            );
            for &(x, y) in points {
                let _ = writeln!(
                    body,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                    at_x(x),
                    at_y(y)
                );
            }
            let key = left + at as f64 * 170.0;
            rectangle(&mut body, (key, 38.0), (12.0, 12.0), colour);
            text(&mut body, key + 18.0, 48.0, "start", name);
        }
        Self { title: title.to_owned(), body, height: HEIGHT }
    }

    /// The file.
    pub fn svg(&self) -> String {
        let (title, height) = (escaped(&self.title), self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn heading(title: &str, unit: &str) -> String {
    let mut body = String::new();
    let _ = writeln!(
        body,
        r##"<text x="16" y="24" font-size="15" font-weight="bold" fill="#1b1b1b">{} <tspan font-weight="normal" fill="#555555">({})</tspan></text>"##,
        escaped(title),
        escaped(unit)
    );
    body
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        body,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#1b1b1b">{text}</text>"##
    );
}

fn rectangle(body: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    let _ = writeln!(
        body,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
    );
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        body,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="{width}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The powers of ten between two values.
fn ticks_of_ten(first: f64, last: f64) -> Vec<f64> {
    (0..=12).map(|power| 10f64.powi(power)).filter(|tick| (first..=last).contains(tick)).collect()
}

/// Some four to eight round values between two others.
fn even_ticks(first: f64, last: f64) -> Vec<f64> {
    if last <= first {
        return vec![first];
    }
    let raw = (last - first) / 6.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= raw);
    let step = step.unwrap_or(raw);
    let begin = (first / step).ceil() as i64;
    (begin..).map(|n| n as f64 * step).take_while(|tick| *tick <= last).collect()
}

/// A tick's text: 10000 is 10k.
fn short(value: f64) -> String {
    let (scaled, letter) = match value {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{letter}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (first, last, ticks) in [
            (0.0, 6.0, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (0.0, 101.0, vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0]),
            (3.0, 3.0, vec![3.0]),
        ] {
            assert_eq!(even_ticks(first, last), ticks);
        }
        assert_eq!(ticks_of_ten(100.0, 1e5), [100.0, 1e3, 1e4, 1e5]);
    }

    #[test]
    fn ticks_are_short() {
        for (value, text) in [(0.0, "0"), (0.25, "0.25"), (100.0, "100"), (1500.0, "1.5k"), (1e7, "10M")] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn what_a_name_says_is_text() {
        let svg = Plot::bars("a < b & c", "s", vec![("x".into(), vec![1.0, 2.0, 3.0])]).svg();
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("a < b"), "{svg}");
    }
}
