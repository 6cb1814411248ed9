//! Names and values by which a caller says who it is, in queries and headers.

/// What the name of a query parameter or header says about the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Unknown,
    /// Identifies the caller: `api_key`.
    Key,
    /// Half of a credential in two parts (`app_id` and `app_key`), or the whole of one, by its
    /// value.
    Id,
    /// `key` is the key of a map more often.
    KeyByValue,
    /// Opaque, and repeated by whoever reads a page twice.
    Cursor,
}

pub(super) fn caller(words: &[String]) -> Caller {
    let joined = words.concat();
    match joined.as_str() {
        "apikey" | "xapikey" | "accesstoken" | "xaccesstoken" | "token" | "authtoken"
        | "xauthtoken" | "apitoken" | "apptoken" | "usertoken" | "bearertoken" | "bearer"
        | "sessiontoken" | "accesskey" | "appkey" | "userkey" | "authkey" | "sessionkey"
        | "subscriptionkey" | "auth" | "jwt" | "sig" | "clientsecret" | "apisecret"
        | "appsecret" => return Caller::Key,
        "appid" | "applicationid" | "appcode" | "xappid" | "xapplicationid" => return Caller::Id,
        "key" => return Caller::KeyByValue,
        _ => {}
    }
    let is_cursor = words.iter().any(|w| {
        matches!(
            w.as_str(),
            "cursor"
                | "page"
                | "next"
                | "after"
                | "before"
                | "continuation"
                | "state"
                | "id"
                | "ids"
                | "hash"
                | "digest"
                | "filter"
        )
    });
    if is_cursor { Caller::Cursor } else { Caller::Unknown }
}

/// Long enough and with digits: made by an issuer, not by a person who names an application.
pub(super) fn looks_issued(value: &[u8]) -> bool {
    value.len() >= 8
        && value.iter().any(u8::is_ascii_digit)
        && value.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
