//! Markdown, as far as it takes to see whether a text contains any.

/// Which of these signs stand in the text so that they are read as markup. A backslash before a
/// punctuation mark takes its meaning, and within a bare address nothing has one.
#[must_use]
pub fn signs<'s>(text: &str, signs: &[&'s str]) -> Vec<&'s str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escaped = rest.strip_prefix('\\').and_then(|after| after.chars().next());
        let sign = signs.iter().find(|sign| rest.starts_with(**sign));
        rest = if escaped.is_some_and(|c| c.is_ascii_punctuation()) {
            &rest[2..]
        } else if rest.starts_with("http://") || rest.starts_with("https://") {
            rest.trim_start_matches(|c: char| !c.is_whitespace() && c != '<')
        } else if let Some(sign) = sign {
            found.push(*sign);
            &rest[sign.len()..]
        } else {
            &rest[c.len_utf8()..]
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_count_where_nothing_takes_their_meaning() {
        for (text, expected) in [
            ("plain - text.", &[][..]),
            ("*bold*", &["*", "*"]),
            (r"\*not bold\*", &[]),
            (r"\\*bold after a backslash", &["*"]),
            (r"C:\*", &[]),
            ("[text](https://evil)", &["]("]),
            (r"\[text\]\(https://evil\)", &[]),
            ("https://ci.example.com/a*b*c and *", &["*"]),
            ("https://ci.example.com/<*", &["*"]),
        ] {
            assert_eq!(signs(text, &["*", "]("]), expected, "{text}");
        }
    }
}
