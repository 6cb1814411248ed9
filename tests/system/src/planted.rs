//! Personal data and secrets that are put into traffic to be looked for everywhere afterwards.

use std::{fs, path::Path};

use anyhow::Result;

/// A value that must never leave the agent, and what it is.
#[derive(Clone, Debug)]
pub struct Planted {
    pub class: &'static str,
    pub value: String,
}

/// Values of every class, `rounds` different ones each where a class has so many.
pub fn values(rounds: usize) -> Vec<Planted> {
    let fixed: [(&'static str, &str); 18] = [
        ("card", "4539578763621486"),
        ("card", "5425233430109903"),
        ("card with dashes", "4917-4845-8989-7107"),
        ("amex", "374245455400126"),
        ("iban", "GB33BUKB20201555555555"),
        ("iban with spaces", "FR76 3000 6000 0112 3456 7890 189"),
        ("ssn", "536-22-8726"),
        ("phone", "+1 (415) 555-0132"),
        ("phone", "+33612345678"),
        ("aws key", "AKIAIOSFODNN7QRSTUVW"),
        ("github token", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("slack token", "xoxb-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"),
        ("ipv4", "203.0.113.77"),
        ("ipv6", "2001:db8:85a3::8a2e:370:7334"),
        ("mac address", "3c:22:fb:9a:71:d4"),
        ("person", "Maximiliane Oberhuber"),
        ("street", "Kapuzinergasse 47"),
        ("password", "Tr0ub4dor&3-zebra"),
    ];
    let mut all: Vec<Planted> =
        fixed.iter().map(|&(class, value)| Planted { class, value: value.to_owned() }).collect();
    for n in 0..rounds {
        all.push(Planted {
            class: "email",
            value: format!("wilhelmina.tester{n}@private-mail.example"),
        });
        all.push(Planted { class: "jwt", value: jwt(n as u64) });
        all.push(Planted { class: "high-entropy token", value: random(n as u64 + 77, 40) });
        all.push(Planted { class: "session cookie", value: random(n as u64 + 5555, 32) });
    }
    all
}

fn jwt(n: u64) -> String {
    format!(
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.{}.{}",
        base64(
            format!(r#"{{"sub":"wilhelmina-{n}","email":"w{n}@private-mail.example"}}"#).as_bytes(),
            true
        )
        .trim_end_matches('='),
        random(n + 999, 86)
    )
}

fn random(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let alphabet = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
            char::from(alphabet[(state >> 20) as usize % alphabet.len()])
        })
        .collect()
}

/// RFC 4648, sections 4 and 5.
pub fn base64(bytes: &[u8], url_safe: bool) -> String {
    let last = if url_safe { b"-_" } else { b"+/" };
    let mut alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    alphabet.extend_from_slice(last);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = (word >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(alphabet[digit]) } else { '=' });
        }
    }
    text
}

/// `%XX` for every byte but unreserved ones (RFC 3986 section 2.3).
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Every form in which a value might have leaked.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), percent(value), percent(value).replace("%20", "+")];
    let digits: String = value.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
    if digits.len() >= 9 {
        forms.push(digits);
    }
    forms.push(value.bytes().map(|byte| format!("{byte:02x}")).collect());
    for url_safe in [false, true] {
        // Base64 of a text that holds the value depends on where in a group of three it begins;
        // the characters that also depend on its neighbours are cut off.
        for shift in 0..3 {
            let padded = [vec![0; shift], value.as_bytes().to_vec()].concat();
            let encoded = base64(&padded, url_safe);
            let begin = [0, 2, 3][shift];
            let end = padded.len() * 8 / 6;
            forms.extend(encoded.get(begin..end).filter(|form| form.len() >= 8).map(str::to_owned));
        }
    }
    let lower: Vec<String> = forms.iter().map(|form| form.to_lowercase()).collect();
    forms.extend(lower);
    forms.sort();
    forms.dedup();
    forms
}

/// Looks for planted values in bytes, in every form.
pub struct Search {
    /// The first four bytes of a form decide which forms can begin there.
    forms: std::collections::HashMap<[u8; 4], Vec<(Vec<u8>, String)>>,
}

impl Search {
    pub fn new(planted: &[Planted]) -> Self {
        let mut map: std::collections::HashMap<[u8; 4], Vec<(Vec<u8>, String)>> =
            std::collections::HashMap::new();
        for Planted { class, value } in planted {
            for form in forms(value) {
                if let Some(first) = form.as_bytes().first_chunk::<4>() {
                    map.entry(*first)
                        .or_default()
                        .push((form.clone().into_bytes(), format!("{class} as {form:?}")));
                }
            }
        }
        Self { forms: map }
    }

    /// What was found, and where.
    pub fn bytes(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for at in 0..bytes.len().saturating_sub(3) {
            let Some(first) = bytes[at..].first_chunk::<4>() else { break };
            for (form, what) in self.forms.get(first).into_iter().flatten() {
                if bytes[at..].starts_with(form) {
                    let found_here = format!("{place}: {what}");
                    if !found.contains(&found_here) {
                        found.push(found_here);
                    }
                }
            }
        }
        found
    }

    /// Every file below `dir`, its name included.
    pub fn directory(&self, dir: &Path) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let place = path.display().to_string();
            found.extend(self.bytes("a file's name", place.as_bytes()));
            if path.is_dir() {
                found.extend(self.directory(&path)?);
            } else {
                found.extend(self.bytes(&place, &fs::read(&path)?));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes(), false), text);
        }
        assert_eq!(base64(&[0xfb, 0xff], true), "-_8=");
    }

    /// The search would be worth nothing if it could not find.
    #[test]
    fn every_value_is_found_in_every_form_and_alignment() {
        let planted = values(3);
        for one in &planted {
            let search = Search::new(std::slice::from_ref(one));
            let value = &one.value;
            let mut hidden = vec![
                format!("some text {value} and more"),
                format!("/path/{}?x", percent(value)),
                value.to_lowercase(),
                value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ];
            for before in ["", "a", "ab", "abc"] {
                for url_safe in [false, true] {
                    hidden.push(base64(format!("{before}{value}zz").as_bytes(), url_safe));
                }
            }
            for text in hidden {
                assert!(
                    !search.bytes("x", text.as_bytes()).is_empty(),
                    "{value} not found in {text}"
                );
            }
            assert!(search.bytes("x", b"nothing of the kind, 1234567890").is_empty(), "{value}");
        }
    }
}
