//! W3C Trace Context (level 1): where a request stands in a trace.

use http::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const SAMPLED: u8 = 1;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: u128,
    pub span: u64,
    pub is_sampled: bool,
}

impl Parent {
    /// `None`: there is none, or none that is valid; then a trace begins here (section 4.3).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::read(value),
            _ => None,
        }
    }

    /// `VERSION-TRACE-PARENT-FLAGS`. Later versions may have more after that (section 4.4).
    pub fn read(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && is_hex(parent, 16)
            && is_hex(flags, 2)
            && (version != "00" || parts.next().is_none());
        if !is_valid {
            return None;
        }
        let read = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(parent, 16).ok()?,
            is_sampled: u8::from_str_radix(flags, 16).ok()? & SAMPLED != 0,
        };
        (read.trace != 0 && read.span != 0).then_some(read)
    }
}

/// The span of a request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    /// The caller's.
    pub parent: Option<u64>,
    pub is_sampled: bool,
}

impl Context {
    /// For whoever comes after us, whose parent is the span `span` of ours.
    pub fn traceparent(&self, span: u64) -> HeaderValue {
        let flags = u8::from(self.is_sampled);
        let text = format!("00-{:032x}-{span:016x}-{flags:02x}", self.trace);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }

    pub fn trace_id(&self) -> HeaderValue {
        let text = format!("{:032x}", self.trace);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_the_standard_says() {
        let read = |text| Parent::read(&HeaderValue::from_static(text));
        let (trace, span) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        let parent = Parent { trace, span, is_sampled: true };
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(valid), Some(parent));
        let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02";
        assert_eq!(read(unsampled), Some(Parent { is_sampled: false, ..parent }));
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(read(later), Some(parent));
        for invalid in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert_eq!(read(invalid), None, "{invalid}");
        }
        let context = Context { trace, span: 1, parent: Some(span), is_sampled: true };
        assert_eq!(context.traceparent(span), valid);
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(valid));
        assert_eq!(Parent::of(&twice), Some(parent));
        twice.append(TRACEPARENT, HeaderValue::from_static(valid));
        assert_eq!(Parent::of(&twice), None);
    }
}
