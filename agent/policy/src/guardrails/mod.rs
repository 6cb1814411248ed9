//! Guardrails: what may not pass whoever asks. Sizes, and personal data in bodies.

pub mod limits;
pub mod masking;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RANGE},
};
use serde::Deserialize;

use self::{
    limits::{Limits, LimitsConfig},
    masking::{Masked, Masker},
};
use crate::{
    context::{Body, RequestContext},
    decision::{Decision, Denial, PolicyKind, Verdict},
    engine::BodyNeed,
    error::Refusal,
    units::Size,
};

/// ```yaml
/// guardrails:
///   limits: {headers: 32KiB, body: 10MiB, json_depth: 32}
///   personal_data:
///     request: block
///     response: mask
///     kinds: [email, phone, card, ssn, iban]
/// ```
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GuardrailsConfig {
    pub limits: LimitsConfig,
    pub personal_data: Option<PersonalDataConfig>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalDataConfig {
    pub request: Action,
    pub response: Action,
    /// By the names that contracts give them: `email`, `phone`, `card`, `ssn`, `iban`,
    /// `national-id`, `ipv4`, `ipv6`, `mac-address`, `coordinates`, `birth-date`, `name`,
    /// `address`, `username`, `jwt`, `api-key`, `cloud-key`, `private-key`, `password`, `secret`.
    pub kinds: Vec<stoa_contract::observation::Personal>,
    /// What stands in its place.
    pub replacement: String,
    /// Bodies are read up to so much.
    pub up_to: Size,
    /// What becomes of bodies that are longer, compressed, or neither JSON, form nor text.
    pub unreadable: Unreadable,
}

impl Default for PersonalDataConfig {
    fn default() -> Self {
        use stoa_contract::observation::Personal::{
            Card, Email, Iban, Ipv4, Ipv6, NationalId, Phone, Ssn,
        };
        Self {
            request: Action::Off,
            response: Action::Mask,
            kinds: vec![Email, Phone, Card, Ssn, Iban, NationalId, Ipv4, Ipv6],
            replacement: "[REDACTED]".to_owned(),
            up_to: Size(1 << 20),
            unreadable: Unreadable::Pass,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Off,
    Mask,
    /// Refuse the message.
    Block,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unreadable {
    /// It goes on as it is, and is counted.
    #[default]
    Pass,
    Refuse,
}

#[derive(Debug)]
pub struct Guardrails {
    limits: Limits,
    personal: Option<PersonalData>,
}

#[derive(Debug)]
struct PersonalData {
    request: Action,
    response: Action,
    up_to: usize,
    refuses_unreadable: bool,
    masker: Masker,
}

impl Guardrails {
    pub fn build(config: &GuardrailsConfig) -> Result<Self, Refusal> {
        let personal = match &config.personal_data {
            None => None,
            Some(personal) => {
                Some(PersonalData::build(personal).map_err(|r| r.below("personal_data"))?)
            }
        };
        Ok(Self { limits: Limits::build(&config.limits)?, personal })
    }

    /// What must be read of the request before [`check`](Self::check).
    pub fn body_need(&self, request: &RequestContext<'_>) -> BodyNeed {
        let mut most = 0;
        if is_readable(request.headers) {
            if let Some(personal) = &self.personal
                && personal.request != Action::Off
            {
                most = personal.up_to;
            }
            if self.limits.needs_body(request.headers) {
                most = most.max(self.limits.depth_up_to());
            }
        }
        if most == 0 { BodyNeed::None } else { BodyNeed::UpTo(most) }
    }

    /// What must be read of the response before [`check_response`](Self::check_response).
    pub fn response_body_need(&self, headers: &HeaderMap) -> BodyNeed {
        match &self.personal {
            Some(personal) if personal.response != Action::Off && is_readable(headers) => {
                BodyNeed::UpTo(personal.up_to)
            }
            _ => BodyNeed::None,
        }
    }

    pub fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        self.limits.check(request, decision)?;
        let Some(personal) = &self.personal else { return Ok(()) };
        if personal.response != Action::Off {
            decision.obligations.mask_response = true;
            // We could not read the response otherwise, and a part of it may be cut anywhere.
            if request.headers.contains_key(RANGE) {
                decision.headers_to_remove.push(RANGE);
            }
            if request.headers.contains_key(ACCEPT_ENCODING) {
                decision
                    .headers_to_set
                    .push((ACCEPT_ENCODING, HeaderValue::from_static("identity")));
            }
        }
        if personal.request == Action::Off {
            return Ok(());
        }
        let masked = personal.read(request.headers, request.body);
        match (masked, personal.request) {
            (Masked::Clean, _) => Ok(()),
            (Masked::Unreadable, _) if personal.refuses_unreadable => Err(unreadable()),
            (Masked::Unreadable, _) => {
                decision.note(PolicyKind::Guardrails, "personal_data_unread");
                Ok(())
            }
            (Masked::Found(_), Action::Block) => Err(Denial {
                policy: PolicyKind::Guardrails,
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: "personal_data",
                reason: "The request holds personal data that may not be sent here".into(),
            }),
            (Masked::Found(body), _) => {
                decision.note(PolicyKind::Guardrails, "personal_data_masked");
                decision.obligations.mask_request = true;
                decision.masked_body = Some(body);
                Ok(())
            }
        }
    }

    /// The body to send in place of the response's, if another.
    pub fn check_response(
        &self,
        headers: &HeaderMap,
        body: Body<'_>,
    ) -> Result<(Option<Vec<u8>>, Option<&'static str>), Denial> {
        let Some(personal) = self.personal.as_ref().filter(|p| p.response != Action::Off) else {
            return Ok((None, None));
        };
        match (personal.read(headers, body), personal.response) {
            (Masked::Clean, _) => Ok((None, None)),
            (Masked::Unreadable, _) if personal.refuses_unreadable => {
                Err(Denial { status: StatusCode::BAD_GATEWAY, ..unreadable() })
            }
            (Masked::Unreadable, _) => Ok((None, Some("personal_data_unread"))),
            (Masked::Found(_), Action::Block) => Err(Denial {
                policy: PolicyKind::Guardrails,
                status: StatusCode::BAD_GATEWAY,
                code: "personal_data",
                reason: "The response holds personal data that may not leave".into(),
            }),
            (Masked::Found(body), _) => Ok((Some(body), Some("personal_data_masked"))),
        }
    }
}

impl PersonalData {
    fn build(config: &PersonalDataConfig) -> Result<Self, Refusal> {
        if config.kinds.is_empty() {
            return Err(Refusal::new("kinds", "is empty", "list a kind, or remove the section"));
        }
        if config.request == Action::Off && config.response == Action::Off {
            return Err(Refusal::new(
                "",
                "masks neither requests nor responses",
                "set request or response to mask or block, or remove the section",
            ));
        }
        Ok(Self {
            request: config.request,
            response: config.response,
            up_to: config.up_to.0,
            refuses_unreadable: config.unreadable == Unreadable::Refuse,
            masker: Masker::new(config.kinds.clone(), config.replacement.clone()),
        })
    }

    fn read(&self, headers: &HeaderMap, body: Body<'_>) -> Masked {
        match body {
            Body::Whole([]) => Masked::Clean,
            Body::Whole(body) if is_readable(headers) => {
                let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                self.masker.mask(media, body)
            }
            Body::Whole(_) | Body::Longer => Masked::Unreadable,
            Body::Unread if has_body(headers) => Masked::Unreadable,
            Body::Unread => Masked::Clean,
        }
    }
}

fn unreadable() -> Denial {
    Denial {
        policy: PolicyKind::Guardrails,
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code: "body_unreadable",
        reason: "The body cannot be checked: too long, compressed or of an unknown type".into(),
    }
}

/// RFC 9112 section 6: a length or a coding announces one; HTTP/2 may announce nothing, and its
/// doors read the body where we ask for it.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::TRANSFER_ENCODING)
        || headers.get(http::header::CONTENT_LENGTH).is_some_and(|value| value != "0")
}

/// Not compressed, and of a type that we take apart.
fn is_readable(headers: &HeaderMap) -> bool {
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    let media = headers.get(CONTENT_TYPE);
    is_plain && media.is_none_or(|value| value.to_str().is_ok_and(masking::is_readable))
}

#[cfg(test)]
mod tests;
