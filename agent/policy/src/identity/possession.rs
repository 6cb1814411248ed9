//! Whose token it is: one that names a certificate or a key in its `cnf` claim (RFC 7800) is nobody's
//! without the certificate (RFC 8705 section 3), or a proof by the key (RFC 9449 section 7).

use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{Certificate, Identities, Rejection, dpop::Presented, forward::Known};
use crate::{clock::Now, context::RequestContext, decision::AuthenticationMethod};

/// What a token is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// SHA-256 of a certificate's DER (`x5t#S256`).
    pub certificate: Option<[u8; 32]>,
    /// SHA-256 of a JSON Web Key's canonical form, RFC 7638 (`jkt`).
    pub key: Option<[u8; 32]>,
}

const BOUND: Rejection = Rejection::unauthorized(
    "token_bound",
    "The access token is bound to another client certificate",
);

const UNBOUND: Rejection = Rejection::unauthorized(
    "token_unbound",
    "The access token must be bound to the client certificate",
);

const NO_PROOFS: Rejection =
    Rejection::unauthorized("token_bound", "The access token needs a proof of possession");

const AS_BEARER: Rejection = Rejection::of_proof(
    "token_bound",
    "The access token is bound to a key and does not come with the scheme DPoP",
    "invalid_token",
);

const NO_KEY: Rejection =
    Rejection::of_proof("token_unbound", "The access token is bound to no key", "invalid_token");

impl Identities {
    /// Asked with every request: a token that is remembered is remembered with its binding, not
    /// with who has shown it.
    pub(super) fn check_possession(
        &self,
        known: &Known,
        certificate: &Certificate<'_>,
        request: &RequestContext<'_>,
    ) -> Result<(), Rejection> {
        if known.identity.method != AuthenticationMethod::Jwt {
            return Ok(());
        }
        self.check_certificate(&known.binding, certificate)?;
        // Last, because a proof counts once.
        self.check_key(&known.binding, request)
    }

    fn check_certificate(
        &self,
        binding: &Binding,
        certificate: &Certificate<'_>,
    ) -> Result<(), Rejection> {
        let mtls = self.certificates();
        let (verdict, counter) = match &binding.certificate {
            Some(bound) => match compare(bound, certificate) {
                Ok(()) => (Ok(()), mtls.map(|mtls| &mtls.tally().bound)),
                Err(rejection) => (Err(rejection), mtls.map(|mtls| &mtls.tally().mismatched)),
            },
            None if self.must_bind_certificate => {
                (Err(UNBOUND), mtls.map(|mtls| &mtls.tally().unbound))
            }
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

    fn check_key(&self, binding: &Binding, request: &RequestContext<'_>) -> Result<(), Rejection> {
        let Some(dpop) = &self.dpop else {
            return binding.key.map_or(Ok(()), |_| Err(NO_PROOFS));
        };
        match (&binding.key, dpop.token(request)?) {
            (Some(bound), Some(token)) => {
                dpop.check(&Presented { request, token, bound }, &self.proofs, Now::read())
            }
            // Section 7.2.
            (Some(_), None) => Err(AS_BEARER),
            (None, Some(_)) => Err(NO_KEY),
            (None, None) if dpop.is_required() => Err(NO_KEY),
            (None, None) => Ok(()),
        }
    }
}

fn compare(bound: &[u8; 32], certificate: &Certificate<'_>) -> Result<(), Rejection> {
    let shown = match certificate {
        Ok(shown) => shown.as_ref().ok_or(BOUND)?,
        Err(rejection) => return Err(rejection.clone()),
    };
    let fingerprint = shown.digest().ok_or(BOUND)?;
    verify_slices_are_equal(bound, &fingerprint).map_err(|_| BOUND)
}

#[cfg(test)]
#[path = "possession_tests.rs"]
mod tests;
