//! A JSON text of which only the beginning is there, made into a whole one: masking goes by the
//! names of members, which only a whole text has for sure.

use serde::de::IgnoredAny;

/// As deep as the parser goes.
const DEEPEST: usize = 120;

/// The longest beginning that ends with a whole value, closed. `None`: it is not JSON.
pub fn close(json: &[u8]) -> Option<Vec<u8>> {
    if serde_json::from_slice::<IgnoredAny>(json).is_ok() {
        return Some(json.to_vec());
    }
    // What closes the containers around us, and up to where, and how deep, all is whole. Between
    // two such places containers are only opened, so the outer ones stay what they are.
    let mut closers: Vec<u8> = Vec::new();
    let (mut whole, mut depth) = (0, 0);
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let is_value = match byte {
            b'{' | b'[' => {
                if closers.len() == DEEPEST {
                    return None;
                }
                closers.push(if *byte == b'{' { b'}' } else { b']' });
                at += 1;
                true
            }
            b'}' | b']' => {
                if closers.pop() != Some(*byte) {
                    return None;
                }
                at += 1;
                true
            }
            b'"' => {
                let Some(end) = text_end(json, at) else { break };
                at = end;
                // A name, unless the text ends before that is known.
                match json.get(at..)?.trim_ascii_start().first() {
                    None | Some(b':') => false,
                    Some(_) => true,
                }
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                false
            }
            _ => {
                let is_end = |b: &u8| b",]}: \t\r\n".contains(b);
                let Some(length) = json.get(at..)?.iter().position(is_end) else { break };
                // Neither a number, a literal nor a delimiter.
                if length == 0 {
                    return None;
                }
                at += length;
                true
            }
        };
        if is_value {
            (whole, depth) = (at, closers.len());
        }
    }
    let mut closed = json.get(..whole)?.to_vec();
    closers.truncate(depth);
    closed.extend(closers.iter().rev());
    serde_json::from_slice::<IgnoredAny>(&closed).is_ok().then_some(closed)
}

/// One past the closing quote; `None`: it is not there.
fn text_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(json: &str) -> Option<String> {
        close(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_not_whole_is_left_out() {
        for (open, whole) in [
            (r#"{"a":1,"b":"cut he"#, r#"{"a":1}"#),
            (r#"{"a":1,"b":"#, r#"{"a":1}"#),
            (r#"{"a":1,"b"#, r#"{"a":1}"#),
            (r#"{"a":[1,23"#, r#"{"a":[1]}"#),
            (r#"{"a":[1,23,"#, r#"{"a":[1,23]}"#),
            (r#"{"a":{"b":[{"c":"d\"#, r#"{"a":{"b":[{}]}}"#),
            (r#"{"a":{"b":true},"c":{"#, r#"{"a":{"b":true},"c":{}}"#),
            (r#"["a", "b" "#, r#"["a"]"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(closed(open).as_deref(), Some(whole), "{open}");
        }
    }

    #[test]
    fn every_beginning_of_a_document_becomes_a_document() {
        let json =
            r#"{"id":7,"items":[{"n":"a\"b","ok":true,"x":null},[1.5e3,-2]],"e":{},"t":"ü"}"#;
        for end in 1..=json.len() {
            let closed = close(&json.as_bytes()[..end]).unwrap_or_else(|| panic!("{end}"));
            assert!(serde_json::from_slice::<serde_json::Value>(&closed).is_ok(), "{end}");
        }
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in ["", "hello {", "{]", "{\"a\" 1 \"b\"", "}", "a,b"] {
            assert_eq!(closed(text), None, "{text}");
        }
        let deep = "[".repeat(5000);
        assert_eq!(closed(&deep), None);
    }
}
