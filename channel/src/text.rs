//! Texts of payloads, made fit to be shown: in lines, cut, and without what would change how they look.

use url::Url;

/// Lines without colours or control characters.
pub fn lines(text: &str) -> String {
    let clean = without_ansi(text).replace("\r\n", "\n").replace('\r', "\n");
    let shown: String =
        clean.chars().filter(|c| !(c.is_control() || turns(*c)) || ['\n', '\t'].contains(c)).collect();
    shown.trim().to_owned()
}

/// Whether a character changes the direction of those around it, and so what a line seems to say
/// (Unicode UAX #9, "Explicit directional formatting").
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line without colours or control characters, cut with an ellipsis.
pub fn one_line(text: &str, length: usize) -> String {
    let clean = without_ansi(text);
    let clean: String = clean.chars().filter(|c| !turns(*c)).collect();
    let words = clean.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    cut(&words.collect::<Vec<_>>().join(" "), length)
}

/// At most `length` characters, the last an ellipsis where something was cut.
pub fn cut(text: &str, length: usize) -> String {
    escaped(text, length, |c, cut| cut.push(c))
}

/// At most `length` bytes, the last an ellipsis where something was cut.
pub fn cut_bytes(text: &str, length: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() <= length {
        return text.to_owned();
    }
    let fits = text.floor_char_boundary(length.saturating_sub(ELLIPSIS.len_utf8()));
    let mut cut = text[..fits].to_owned();
    cut.push(ELLIPSIS);
    cut
}

/// The text with each character as `escape` writes it, at most `length` long and cut between two
/// characters, not within what became of one. Lengths are UTF-16's: some vendors count that way,
/// and who counts characters finds no more of them.
pub fn escaped(text: &str, length: usize, escape: impl Fn(char, &mut String)) -> String {
    let (mut escaped, mut used, mut fits) = (String::with_capacity(text.len()), 0, 0);
    for c in text.chars() {
        let begin = escaped.len();
        escape(c, &mut escaped);
        used += escaped[begin..].chars().map(char::len_utf16).sum::<usize>();
        if used > length {
            escaped.truncate(fits);
            escaped.push('…');
            break;
        }
        if used < length {
            fits = escaped.len();
        }
    }
    escaped
}

/// A link is http or https and names a host. One with a user before the host is none: it is read as
/// another host than the one it leads to.
pub fn link(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && ["http", "https"].contains(&url.scheme()) && url.has_host()).then_some(url)
}

/// Drops escape sequences (ECMA-48): colours, links, titles, character sets.
fn without_ansi(text: &str) -> String {
    let (mut clean, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        clean.push_str(before);
        rest = after_escape(after);
    }
    clean.push_str(rest);
    clean
}

/// What follows the escape sequence whose first character was ESC.
fn after_escape(text: &str) -> &str {
    let mut chars = text.chars();
    match chars.next() {
        None => "",
        // A control sequence: parameters and intermediates, up to the final byte.
        Some('[') => {
            chars.by_ref().find(|c| ('@'..='~').contains(c));
            chars.as_str()
        }
        // A control string, up to BEL or ESC \; what never ends is no string.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let ends = ["\u{7}", "\u{1b}\\"].iter().filter_map(|end| Some((text.find(end)?, end.len())));
            ends.min().map_or(chars.as_str(), |(at, length)| &text[at + length..])
        }
        // Intermediates and a final byte.
        Some(' '..='/') => {
            chars.by_ref().find(|c| !(' '..='/').contains(c));
            chars.as_str()
        }
        Some(_) => chars.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clean_and_cut() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a\r\nb\tc", "a b c"),
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("\u{1b}[38;5;196mE\u{1b}[m", "E"),
            ("cut\u{1b}[31", "cut"),
            ("\u{1b}]8;;https://evil\u{1b}\\text\u{1b}]8;;\u{7}!", "text!"),
            ("\u{1b}]0;never", "0;never"),
            ("\u{1b}(Bplain", "plain"),
            ("end\u{1b}", "end"),
            ("\u{202e}drow\u{2069}", "drow"),
            ("éééééééééééé", "ééééééééé…"),
            ("éééééééééé", "éééééééééé"),
            // Two units each in UTF-16.
            ("😀😀😀😀😀", "😀😀😀😀😀"),
            ("😀😀😀😀😀😀", "😀😀😀😀…"),
        ] {
            assert_eq!(one_line(text, 10), expected, "{text:?}");
        }
    }

    #[test]
    fn a_cut_never_falls_within_an_escape() {
        let amp = |c: char, out: &mut String| if c == '&' { out.push_str("&amp;") } else { out.push(c) };
        for (text, expected) in [
            ("&&", "&amp;&amp;"),
            ("&&x", "&amp;…"),
            ("&&&", "&amp;…"),
            ("xxxx&&", "xxxx&amp;…"),
            ("xxxxxxxxxx", "xxxxxxxxxx"),
            ("xxxxxxxxxxx", "xxxxxxxxx…"),
        ] {
            assert_eq!(escaped(text, 10, amp), expected, "{text}");
        }
    }

    #[test]
    fn a_link_leads_where_it_seems_to() {
        for (text, expected) in [
            ("https://ci.example.com/r/1", Some("https://ci.example.com/r/1")),
            ("HTTP://ci.example.com", Some("http://ci.example.com/")),
            ("https://x/a b\"<c>", Some("https://x/a%20b%22%3Cc%3E")),
            ("https://bank.example@evil.example/", None),
            ("https://u:p@x/", None),
            ("javascript:alert(1)", None),
            ("https://", None),
            ("http://not a host/", None),
            ("run 17", None),
        ] {
            assert_eq!(link(text).as_ref().map(Url::as_str), expected, "{text}");
        }
    }
}
