//! Whose token it is: one that names a certificate in its `cnf` claim (RFC 7800) is nobody's without
//! it (RFC 8705 section 3).

use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{Certificate, Identities, Rejection, forward::Known};
use crate::decision::AuthenticationMethod;

/// What a token is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// SHA-256 of a certificate's DER (`x5t#S256`).
    pub certificate: Option<[u8; 32]>,
}

const BOUND: Rejection = Rejection::unauthorized(
    "token_bound",
    "The access token is bound to another client certificate",
);

const UNBOUND: Rejection = Rejection::unauthorized(
    "token_unbound",
    "The access token must be bound to the client certificate",
);

impl Identities {
    /// Asked with every request: a token that is remembered is remembered with its binding, not
    /// with who has shown it.
    pub(super) fn check_possession(
        &self,
        known: &Known,
        certificate: &Certificate<'_>,
    ) -> Result<(), Rejection> {
        if known.identity.method != AuthenticationMethod::Jwt {
            return Ok(());
        }
        let mtls = self.certificates();
        let (verdict, counter) = match &known.binding.certificate {
            Some(bound) => match check_certificate(bound, certificate) {
                Ok(()) => (Ok(()), mtls.map(|mtls| &mtls.tally().bound)),
                Err(rejection) => (Err(rejection), mtls.map(|mtls| &mtls.tally().mismatched)),
            },
            None if mtls.is_some_and(|mtls| mtls.requires_binding()) => match certificate {
                Ok(None) => (Ok(()), None),
                Ok(Some(_)) => (Err(UNBOUND), mtls.map(|mtls| &mtls.tally().unbound)),
                Err(rejection) => (Err(rejection.clone()), None),
            },
            None => (Ok(()), None),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        verdict
    }
}

fn check_certificate(bound: &[u8; 32], certificate: &Certificate<'_>) -> Result<(), Rejection> {
    let shown = match certificate {
        Ok(shown) => shown.as_ref().ok_or(BOUND)?,
        Err(rejection) => return Err(rejection.clone()),
    };
    let fingerprint = super::decode_hex(&shown.fingerprint).ok_or(BOUND)?;
    verify_slices_are_equal(bound, &fingerprint).map_err(|_| BOUND)
}

#[cfg(test)]
#[path = "possession_tests.rs"]
mod tests;
