//! Verbs: what operations begin with that are called as functions are (`promoteReplica`,
//! `42:setIamPolicy`).

use std::{collections::HashSet, sync::OnceLock};

use super::{detect::person_name, vocabulary};

const VERBS: &str = "\
    abort accept acknowledge acquire activate add allocate analyze append apply approve archive \
    assign attach authorize batch begin bind block build bulk calculate call cancel change check \
    claim clear clone close commit complete compute confirm connect convert copy count create \
    deactivate delete deploy deprecate detach diagnose disable disconnect dispatch download \
    drain duplicate enable end enroll estimate evaluate exchange execute expand export extend \
    failover fetch finalize find finish flush force generate get grant hide import inject insert \
    install invalidate invite invoke issue join kill leave link list load lock login logout \
    lookup mark merge migrate modify mount move mute notify open patch pause perform pin ping \
    poll prepare preview process promote provision publish pull purge push put query read reboot \
    rebuild recover redeploy refresh register reject release reload remove rename renew reopen \
    replace report request resend reset resize resolve restart restore resume retire retrieve \
    retry revert revoke rollback rotate run save scale schedule search send set share show shut \
    sign simulate skip snooze split start stop stream submit subscribe suspend swap switch sync \
    terminate test toggle transfer translate trigger unarchive unassign unbind unblock undelete \
    undeploy undo uninstall unlink unlock unmute unpin unpublish unregister unshare unsubscribe \
    update upgrade upload validate verify void wait wake watch withdraw write";

pub(super) fn is_verb(word: &str) -> bool {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| VERBS.split_ascii_whitespace().collect()).contains(word)
}

/// A verb that is nobody's name: a word of the vocabulary.
pub(super) fn is_word(word: &str) -> bool {
    is_verb(word) && !matches!(word, "grant" | "mark")
}

/// A verb and what it is done to, as lower-case words.
pub(super) fn is_command(words: &[String]) -> bool {
    words.len() >= 2 && words.first().is_some_and(|verb| is_verb(verb))
}

/// What a custom method may be called (Google's AIP-136): words of the vocabulary, or a verb with
/// what it is done to, and nothing that could be a name or a secret.
pub(super) fn is_custom_method(text: &str) -> bool {
    let is_written_so = (2..=48).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
        && text.bytes().filter(u8::is_ascii_digit).count() <= 2
        && text.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_written_so {
        return false;
    }
    let words = vocabulary::split_words(text);
    if vocabulary::membership(text, &words, false) != vocabulary::Membership::Stranger {
        return true;
    }
    match words.as_slice() {
        [word] => is_verb(word),
        [verb, rest @ ..] => {
            let is_thing = |word: &String| {
                vocabulary::is_word(word)
                    || matches!(word.as_bytes(), [b'a'..=b'z'] | [b'0'..=b'9', ..])
                    || (3..=14).contains(&word.len())
                        && !vocabulary::is_gibberish(word)
                        && !person_name::is_name(word.as_bytes())
                        && !person_name::is_joined_name(word.as_bytes())
            };
            // One stranger is somebody's trade; several are somebody's sentence.
            let is_stranger = |w: &&String| w.len() > 2 && !vocabulary::is_word(w);
            let strangers = rest.iter().filter(is_stranger).count();
            is_verb(verb) && words.len() <= 6 && strangers <= 2 && rest.iter().all(is_thing)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_methods_are_told_from_names_and_secrets() {
        for text in [
            "cancel",
            "failover",
            "setIamPolicy",
            "testIamPermissions",
            "batchGet",
            "exchangeAppAttestAssertion",
            "unbindDeviceFromGateway",
        ] {
            assert!(is_custom_method(text), "{text}");
        }
        for text in ["emma", "setEmma", "NASDAQ", "dGhpcwXq", "xkqzvbnw", "getXkqzvbnw", "80", "a"]
        {
            assert!(!is_custom_method(text), "{text}");
        }
    }
}
