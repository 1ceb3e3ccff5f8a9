//! Where in a trace something happened: the value of a `traceparent` header, as W3C Trace Context
//! (level 1, section 3.2) has it.

use std::fmt;
use std::str::FromStr;

/// Bytes of version 00; later ones begin alike and may go on after a dash.
const LENGTH: usize = 55;

/// A span, as others are told of it. As text it is version 00, whichever version it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span; never 0.
    pub span_id: u64,
    /// Whether its trace is recorded. Other flags are not understood here, and so not passed on.
    pub sampled: bool,
}

/// It is no `traceparent`, and is taken for absent: whoever reads one must not fail for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent")]
pub struct Invalid;

impl FromStr for Traceparent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes = text.as_bytes();
        let is_later = !text.starts_with("00");
        let ends = bytes.len() == LENGTH || is_later && bytes.get(LENGTH) == Some(&b'-');
        let field = |from: usize, to: usize| {
            let digits = text.get(from..to).ok_or(Invalid)?;
            // In lower case, and nothing else that a number may begin with.
            if !digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(Invalid);
            }
            u128::from_str_radix(digits, 16).map_err(|_| Invalid)
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let (version, trace_id, span_id, flags) =
            (field(0, 2)?, field(3, 35)?, field(36, 52)?, field(53, 55)?);
        if !ends || !dashes || version == 0xff || trace_id == 0 || span_id == 0 {
            return Err(Invalid);
        }
        let span_id = u64::try_from(span_id).map_err(|_| Invalid)?;
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_recommendation_allows_is_read() {
        let plain = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (text, read) in [
            (plain, Some(plain)),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some("…-00")),
            // Flags of level 2 and of nobody yet.
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", Some("…-01")),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe", Some("…-00")),
            // Versions to come.
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("…-01")),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes", Some("…-01")),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what-comes", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes", None),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1", None),
            ("00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01", None),
            (" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y", None),
            ("00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01", None),
            ("00", None),
            ("", None),
        ] {
            let expected = read.map(|read| read.replace('…', &plain[..plain.len() - 3]));
            assert_eq!(text.parse().ok().map(|read: Traceparent| read.to_string()), expected, "{text}");
        }
    }
}
