//! Why a token is not accepted, for programs and for people.

use std::borrow::Cow;

use http::StatusCode;

use crate::identity::Rejection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Fault {
    TooLong,
    Malformed,
    /// `none`, one that we do not have, or one that this set does not accept.
    Algorithm,
    /// RFC 7515 section 4.1.11: it demands an extension that we do not know.
    Critical,
    UnknownKey,
    Signature,
    WrongIssuer,
    WrongAudience,
    Expired,
    NoExpiry,
    NotYetValid,
    IssuedInFuture,
    TooOld,
    MalformedDate(&'static str),
    NoSubject,
    /// To something of which we see no proof.
    BoundToProof,
    /// The issuer's keys could not be fetched: not the client's fault.
    KeysUnavailable,
}

impl Fault {
    fn code(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed | Self::MalformedDate(_) => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Critical => "token_extension_unknown",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature_invalid",
            Self::WrongIssuer => "token_issuer",
            Self::WrongAudience => "token_audience",
            Self::Expired | Self::TooOld => "token_expired",
            Self::NoExpiry => "token_without_expiry",
            Self::NotYetValid | Self::IssuedInFuture => "token_not_yet_valid",
            Self::NoSubject => "token_without_subject",
            Self::BoundToProof => "token_bound",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "The access token is too long",
            Self::Malformed => "The access token is malformed",
            Self::MalformedDate(_) => "The access token has a malformed date",
            Self::Algorithm => "The access token is signed with an algorithm that is not accepted",
            Self::Critical => "The access token demands an extension that is not supported",
            Self::UnknownKey => "The access token is signed with an unknown key",
            Self::Signature => "The access token's signature is not valid",
            Self::WrongIssuer => "The access token is of another issuer",
            Self::WrongAudience => "The access token is for another audience",
            Self::Expired => "The access token expired",
            Self::TooOld => "The access token is too old",
            Self::NoExpiry => "The access token never expires",
            Self::NotYetValid => "The access token is not valid yet",
            Self::IssuedInFuture => "The access token was issued in the future",
            Self::NoSubject => "The access token names no subject",
            Self::BoundToProof => "The access token needs a proof of possession",
            Self::KeysUnavailable => "The issuer's keys are not available",
        }
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        Self {
            status: match fault {
                Fault::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNAUTHORIZED,
            },
            code: fault.code(),
            reason: Cow::Borrowed(fault.reason()),
            is_foreign: fault == Fault::WrongIssuer,
            proof_error: None,
        }
    }
}
