//! Values as people write them: `10 s`, `8 KiB`, `true`, a number with or without quotes.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use url::Url;

/// Whatever a file, a flag or the environment may hold in a value's place.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => value.trim().fmt(f),
        }
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Written::deserialize(deserializer).map(|written| written.to_string())
}

pub fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = text(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format!("\"{text}\": {error}")))
}

pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    Vec::<Written>::deserialize(deserializer)?
        .into_iter()
        .map(|written| written.to_string())
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|error| D::Error::custom(format!("\"{text}\": {error}"))))
        .collect()
}

/// Networks; an address is one of its own.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    list::<D, String>(deserializer)?
        .into_iter()
        .map(|text| {
            text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                D::Error::custom(format!("\"{text}\" is neither an address nor a network like 10.0.0.0/8"))
            })
        })
        .collect()
}

pub fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretString>, D::Error> {
    // One alone may stand without brackets.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one.into()],
        OneOrMany::Many(many) => {
            many.into_iter().filter(|each| !each.is_empty()).map(SecretString::from).collect()
        }
    })
}

pub fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    // As it stands: a password may begin or end with a space.
    Ok(Some(match Written::deserialize(deserializer)? {
        Written::Text(text) => text.into(),
        other => other.to_string().into(),
    }))
}

/// A URL of http or https. What is wrong with it is said without it: it may hold a credential.
pub fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let url: Url = text(deserializer)?.parse().map_err(D::Error::custom)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(D::Error::custom("it is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(D::Error::custom("a name and a password belong into otlp-headers"));
    }
    Ok(Some(url))
}

pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = text(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(D::Error::custom(format!("\"{text}\" is neither true nor false"))),
    }
}

pub fn optional_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    flag(deserializer).map(Some)
}

pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = text(deserializer)?;
    let seconds =
        scaled(&text, &[("ms", 0.001), ("s", 1.0), ("min", 60.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)]);
    seconds
        .filter(|seconds| *seconds < 1e9)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| D::Error::custom(format!("\"{text}\" is no time such as 10 s, 500 ms or 2 min")))
}

pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = text(deserializer)?;
    scaled(&text, &[("KiB", 1024.0), ("kB", 1000.0), ("B", 1.0), ("", 1.0)])
        .map(|bytes| bytes as usize)
        .ok_or_else(|| D::Error::custom(format!("\"{text}\" is no size such as 8 KiB")))
}

/// A number that is not negative, and the first unit that fits.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number * factor)
    })
}
