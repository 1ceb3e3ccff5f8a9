//! Values as vendors bound them: one that reads is within its bounds.

use serde::Deserialize;
use url::Url;

/// How long a text is. Some vendors count characters, some UTF-16's units; of the latter there are
/// never fewer.
#[must_use]
pub fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// A text with something in it, at most `MAX` long.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const MAX: usize>(pub String);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match length(&text) {
            _ if text.trim().is_empty() => Err("a text is blank".to_owned()),
            length if length > MAX => Err(format!("a text is {length} long, more than {MAX}")),
            _ => Ok(Self(text)),
        }
    }
}

/// One to `MAX` of something.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Vec<T>", bound = "T: Deserialize<'de>")]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = String;

    fn try_from(list: Vec<T>) -> Result<Self, String> {
        let count = list.len();
        if (1..=MAX).contains(&count) { Ok(Self(list)) } else { Err(format!("{count} of 1 to {MAX}")) }
    }
}

/// An address that a browser opens and no script, at most `MAX` long.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Link<const MAX: usize>(pub String);

impl<const MAX: usize> TryFrom<String> for Link<MAX> {
    type Error = String;

    fn try_from(link: String) -> Result<Self, String> {
        if length(&link) > MAX {
            return Err(format!("a link is longer than {MAX}"));
        }
        if is_link(&link) { Ok(Self(link)) } else { Err(format!("{link} is no link")) }
    }
}

/// Whether this is an absolute address, http or https, with a host.
#[must_use]
pub fn is_link(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}
