//! Durations and sizes as operators write them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// `250ms`, `30s`, `5m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// `512`, `64KiB`, `10MiB`, `1GiB`; powers of 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as 250ms, 30s, 5m, 1h or 7d")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                parse_span(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, such as 512, 64KiB, 10MiB or 1GiB")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                usize::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

fn parse_span(text: &str) -> Option<Span> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Span(Duration::from_millis(number.checked_mul(milliseconds)?)))
}

fn parse_size(text: &str) -> Option<Size> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(factor)?).ok().map(Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_span("250ms"), Some(Span(Duration::from_millis(250))));
        assert_eq!(parse_span("30s"), Some(Span::seconds(30)));
        assert_eq!(parse_span("5 m"), Some(Span::seconds(300)));
        assert_eq!(parse_span("7d"), Some(Span::seconds(604_800)));
        for text in
            ["", "30", "s", "-1s", "1.5s", "30S", "99999999999999999999s", "9999999999999999d"]
        {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("64KiB"), Some(Size(65_536)));
        assert_eq!(parse_size("10 mb"), Some(Size(10 << 20)));
        assert_eq!(parse_size("512"), Some(Size(512)));
        for text in ["", "k", "1.5M", "-1", "9999999999999GiB", "16 furlongs"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_may_be_a_plain_number() {
        assert_eq!(serde_json::from_str::<Size>("4096").ok(), Some(Size(4096)));
        let error = serde_json::from_str::<Span>("\"30\"").unwrap_err().to_string();
        assert!(error.contains("with its unit"), "{error}");
    }
}
