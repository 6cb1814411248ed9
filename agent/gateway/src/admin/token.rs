//! The token that opens the admin API. Only its hash is kept, and it is never shown.

use std::fmt;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

/// Shorter ones could be guessed.
const SHORT: usize = 16;

#[derive(Clone)]
pub struct AdminToken {
    sha256: digest::Digest,
    is_short: bool,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl AdminToken {
    /// What can stand in a header. The error does not show what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("is no token: use printable characters without blanks, such as those of \
                        `openssl rand -hex 32`"
                .to_owned());
        }
        let is_short = text.len() < SHORT;
        Ok(Self { sha256: digest::digest(&digest::SHA256, text.as_bytes()), is_short })
    }

    /// Few enough characters to be guessed.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Takes the same time whatever `shown` has in common with the token: hashes are compared, and
    /// all of them.
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown = digest::digest(&digest::SHA256, shown);
        verify_slices_are_equal(self.sha256.as_ref(), shown.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = AdminToken::parse("correct-horse-battery").unwrap();
        assert!(token.is(b"correct-horse-battery") && !token.is_short());
        for other in ["", "correct", "correct-horse-battery ", "Correct-horse-battery"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(AdminToken::parse("short").unwrap().is_short());
    }

    #[test]
    fn it_is_never_shown() {
        assert_eq!(format!("{:?}", AdminToken::parse("hidden-hidden-hidden").unwrap()), "[secret]");
        let error = AdminToken::parse("hidden hidden").unwrap_err();
        assert!(!error.contains("hidden"), "{error}");
    }
}
