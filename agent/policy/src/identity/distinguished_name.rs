//! Distinguished names of certificates, in the two notations that proxies write.

/// Attribute types in upper case and values, most specific first, as RFC 4514 orders them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DistinguishedName(Vec<(String, String)>);

impl DistinguishedName {
    /// RFC 4514 (`CN=orders,O=acme`) or OpenSSL's older notation (`/O=acme/CN=orders`). `None`: it
    /// is neither. Empty is a name too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start();
        match text.strip_prefix('/') {
            Some(rest) => Self::parse_slashes(rest),
            None if text.is_empty() => Some(Self(Vec::new())),
            None => Self::parse_rfc4514(text),
        }
    }

    /// The value of the most specific attribute of that type.
    pub(super) fn get(&self, kind: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == kind).map(|(_, value)| value.as_str())
    }

    /// A `/` that does not begin `TYPE=` belongs to the value before it.
    fn parse_slashes(text: &str) -> Option<Self> {
        let mut parts: Vec<(String, String)> = Vec::new();
        for part in text.split('/') {
            match part.split_once('=').filter(|(kind, _)| is_type(kind)) {
                Some((kind, value)) => parts.push((kind.to_ascii_uppercase(), value.to_owned())),
                None => {
                    let (_, value) = parts.last_mut()?;
                    value.push('/');
                    value.push_str(part);
                }
            }
        }
        parts.reverse();
        Some(Self(parts))
    }

    fn parse_rfc4514(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (kind, after) = rest.split_once('=')?;
            let kind = kind.trim();
            if !is_type(kind) {
                return None;
            }
            let (value, end) = read_value(after)?;
            parts.push((kind.to_ascii_uppercase(), value));
            match end {
                None => return Some(Self(parts)),
                Some(next) => rest = next,
            }
        }
    }
}

fn is_type(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// Up to an unescaped `,`, `+` or `;`; what follows it, if it came (RFC 4514 section 3).
fn read_value(text: &str) -> Option<(String, Option<&str>)> {
    let mut value = Vec::new();
    let mut kept = 0;
    let bytes = text.trim_start().as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b',' | b'+' | b';' => {
                let rest = std::str::from_utf8(bytes.get(at + 1..)?).ok()?;
                value.truncate(kept);
                return Some((String::from_utf8(value).ok()?, Some(rest)));
            }
            b'\\' => {
                let next = *bytes.get(at + 1)?;
                let pair = [next, bytes.get(at + 2).copied().unwrap_or(0)];
                if let Some(escaped) = hex_pair(pair) {
                    value.push(escaped);
                    at += 3;
                } else {
                    value.push(next);
                    at += 2;
                }
                // Escaped blanks at the end stay.
                kept = value.len();
            }
            other => {
                value.push(*other);
                if *other != b' ' {
                    kept = value.len();
                }
                at += 1;
            }
        }
    }
    value.truncate(kept);
    Some((String::from_utf8(value).ok()?, None))
}

fn hex_pair(pair: [u8; 2]) -> Option<u8> {
    let [high, low] = pair.map(|b| char::from(b).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, String)> {
        DistinguishedName::parse(text).map(|name| name.0).unwrap_or_default()
    }

    fn pair(kind: &str, value: &str) -> (String, String) {
        (kind.to_owned(), value.to_owned())
    }

    #[test]
    fn both_notations_are_the_same_name() {
        let expected = vec![pair("CN", "orders"), pair("OU", "shop"), pair("O", "acme")];
        assert_eq!(parts("CN=orders,OU=shop,O=acme"), expected);
        assert_eq!(parts("cn = orders, ou=shop , O=acme"), expected);
        assert_eq!(parts("/O=acme/OU=shop/CN=orders"), expected);
    }

    #[test]
    fn escapes_do_not_part_a_value() {
        assert_eq!(
            parts(r"CN=Doe\, John,O=Acme\2C Inc\2b,L=a\ "),
            vec![pair("CN", "Doe, John"), pair("O", "Acme, Inc+"), pair("L", "a ")]
        );
        // An attacker's CN does not become an organisation.
        assert_eq!(parts(r"CN=x\,O=acme"), vec![pair("CN", "x,O=acme")]);
        assert_eq!(parts("/CN=http://x/y"), vec![pair("CN", "http://x/y")]);
    }

    #[test]
    fn several_valued_parts_are_several() {
        assert_eq!(
            parts("CN=a+UID=b,O=c"),
            vec![pair("CN", "a"), pair("UID", "b"), pair("O", "c")]
        );
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in ["orders", "=x", "CN", "CN=a,", "CN=a,b", "CN=a\\", "é=x", "CN=\\ff"] {
            assert_eq!(DistinguishedName::parse(text), None, "{text}");
        }
        assert_eq!(DistinguishedName::parse(""), Some(DistinguishedName(Vec::new())));
    }
}
