//! Telegram's HTML mode (core.telegram.org/bots/api, "HTML style"), with the errors of its own parser
//! (`parse_html` of TDLib).

use super::bounded::is_link;

/// The tags that mean something. Others are refused.
const TAGS: [&str; 16] = [
    "a",
    "b",
    "blockquote",
    "code",
    "del",
    "em",
    "i",
    "ins",
    "pre",
    "s",
    "span",
    "strike",
    "strong",
    "tg-emoji",
    "tg-spoiler",
    "u",
];

/// A text and what its tags made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Without tags, references replaced.
    pub text: String,
    /// In the order of their ends.
    pub entities: Vec<Entity>,
}

/// Part of a text with a form or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// The tag, in lower case.
    pub tag: String,
    /// Where it leads.
    pub href: Option<String>,
    /// What it covers.
    pub text: String,
}

/// A tag that is not closed yet: its name, its href, and where its text begins.
struct Open {
    tag: String,
    href: Option<String>,
    from: usize,
}

/// Reads a text of HTML mode. Stricter than Telegram in what the documentation demands and the parser
/// forgives: every `<`, `>` and `&` that is no markup must be a reference.
///
/// # Errors
/// What follows "can't parse entities: ".
pub fn parse(html: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut open: Vec<Open> = Vec::new();
    let mut rest = html;
    while let Some(c) = rest.chars().next() {
        let at = html.len() - rest.len();
        match c {
            '&' => {
                let (replaced, after) =
                    reference(rest).ok_or_else(|| format!("Bare & at byte offset {at}"))?;
                parsed.text.push(replaced);
                rest = after;
            }
            '>' => return Err(format!("Bare > at byte offset {at}")),
            '<' if rest.starts_with("</") => {
                let last = open.pop().ok_or_else(|| format!("Unexpected end tag at byte offset {at}"))?;
                let (name, after) = rest[2..]
                    .split_once('>')
                    .ok_or_else(|| format!("Unclosed end tag at byte offset {at}"))?;
                let (expected, found) = (&last.tag, name.trim_end().to_lowercase());
                if !found.is_empty() && found != *expected {
                    let tags = format!("expected \"</{expected}>\", found \"</{found}>\"");
                    return Err(format!("Unmatched end tag at byte offset {at}, {tags}"));
                }
                let text = parsed.text[last.from..].to_owned();
                parsed.entities.push(Entity { tag: last.tag, href: last.href, text });
                rest = after;
            }
            '<' => {
                let (tag, href, after) = start(rest, at)?;
                open.push(Open { tag, href, from: parsed.text.len() });
                rest = after;
            }
            other => {
                parsed.text.push(other);
                rest = &rest[other.len_utf8()..];
            }
        }
    }
    match open.pop() {
        Some(open) => Err(format!("Can't find end tag corresponding to start tag \"{}\"", open.tag)),
        None => Ok(parsed),
    }
}

/// The tag that the text begins with, its href, and what follows.
fn start(text: &str, at: usize) -> Result<(String, Option<String>, &str), String> {
    let unclosed = || format!("Unclosed start tag at byte offset {at}");
    let end = text.find(|c: char| c.is_whitespace() || c == '>').ok_or_else(unclosed)?;
    let tag = text[1..end].to_lowercase();
    if !TAGS.contains(&tag.as_str()) {
        return Err(format!("Unsupported start tag \"{tag}\" at byte offset {at}"));
    }
    let (mut href, mut rest) = (None, text[end..].trim_start());
    while !rest.starts_with('>') {
        let (name, value) = rest.split_once('=').ok_or_else(unclosed)?;
        let name = name.trim_end();
        if name.is_empty() {
            return Err(format!("Empty attribute name in the tag \"{tag}\" at byte offset {at}"));
        }
        let value = value.trim_start();
        let quote = value.chars().next().ok_or_else(unclosed)?;
        if !['"', '\''].contains(&quote) {
            return Err(format!("Unexpected end of name token in the tag at byte offset {at}"));
        }
        let (quoted, after) = value[1..].split_once(quote).ok_or_else(unclosed)?;
        let quoted = parse(quoted)?.text;
        if (tag.as_str(), name) == ("a", "href") {
            // Telegram drops such a link without a word; nobody meant that.
            href = Some(quoted).filter(|link| is_link(link) || link.starts_with("tg://"));
            if href.is_none() {
                return Err(format!("Wrong link at byte offset {at}"));
            }
        } else if !["class", "emoji-id"].contains(&name) {
            return Err(format!("Unknown attribute \"{name}\" in the tag \"{tag}\" at byte offset {at}"));
        }
        rest = after.trim_start();
    }
    if tag == "a" && href.is_none() {
        return Err(format!("Link without address at byte offset {at}"));
    }
    Ok((tag, href, &rest[1..]))
}

/// The character that a reference at the beginning of the text means, and what follows. The four by
/// name, or any by number.
fn reference(text: &str) -> Option<(char, &str)> {
    let (name, after) = text[1..].split_once(';')?;
    let number = |digits: &str, base| u32::from_str_radix(digits, base).ok().and_then(char::from_u32);
    let c = match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        _ => match name.strip_prefix('#')? {
            hex if hex.starts_with('x') => number(&hex[1..], 16)?,
            decimal => number(decimal, 10)?,
        },
    };
    (c != '\0').then_some((c, after))
}

/// What Telegram keeps of a text: without control characters and changes of direction, and without
/// white space at its ends.
#[must_use]
pub fn kept(text: &str) -> String {
    let keep = |c: &char| *c == '\n' || !(c.is_control() || ('\u{2028}'..='\u{202e}').contains(c));
    text.chars().filter(keep).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_html_of_telegrams_is_refused() {
        for (html, error) in [
            ("a < b", "Unsupported start tag \"\" at byte offset 2"),
            ("é <abac>", "Unsupported start tag \"abac\" at byte offset 3"),
            ("<br/>", "Unsupported start tag \"br/\" at byte offset 0"),
            ("<script>x</script>", "Unsupported start tag \"script\" at byte offset 0"),
            ("<b", "Unclosed start tag at byte offset 0"),
            ("<a href=\"https://x.example>y</a>", "Unclosed start tag at byte offset 0"),
            ("<a href=x>y</a>", "Unexpected end of name token in the tag at byte offset 0"),
            ("<a =\"x\">y</a>", "Empty attribute name in the tag \"a\" at byte offset 0"),
            ("<a href=\"javascript:alert(1)\">y</a>", "Wrong link at byte offset 0"),
            ("<a href=\"\">y</a>", "Wrong link at byte offset 0"),
            ("<a>y</a>", "Link without address at byte offset 0"),
            ("<b onclick=\"x\">y</b>", "Unknown attribute \"onclick\" in the tag \"b\" at byte offset 0"),
            ("x</b>", "Unexpected end tag at byte offset 1"),
            ("<b>x</b", "Unclosed end tag at byte offset 4"),
            ("<b>x</i>", "Unmatched end tag at byte offset 4, expected \"</b>\", found \"</i>\""),
            ("<b>x", "Can't find end tag corresponding to start tag \"b\""),
            ("a & b", "Bare & at byte offset 2"),
            ("&nbsp;", "Bare & at byte offset 0"),
            ("&#0;", "Bare & at byte offset 0"),
            ("a > b", "Bare > at byte offset 2"),
        ] {
            assert_eq!(parse(html), Err(error.to_owned()), "{html}");
        }
    }

    #[test]
    fn tags_and_references_are_read() {
        let parsed =
            parse("<b>a &lt;b&gt;</b> <a href=\"https://x.example/?a&amp;b\">c</a> &#x41;&#66;").unwrap();
        assert_eq!(parsed.text, "a <b> c AB");
        let (link, bold) = (parsed.entities[1].clone(), parsed.entities[0].clone());
        assert_eq!((bold.tag.as_str(), bold.href, bold.text.as_str()), ("b", None, "a <b>"));
        assert_eq!((link.tag.as_str(), link.href.as_deref()), ("a", Some("https://x.example/?a&b")));
        assert_eq!(kept(" \u{1}\u{202e}a\nb\u{7f} "), "a\nb");
    }
}
