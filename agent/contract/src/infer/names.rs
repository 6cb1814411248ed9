//! Names: of parameters from their parents, of operations from method and template, of components.

use std::collections::BTreeSet;

/// Words that stand before the resources of an API and name none.
pub(crate) fn is_prefix(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "api"
            | "apis"
            | "rest"
            | "public"
            | "internal"
            | "private"
            | "service"
            | "services"
            | "web"
    ) || is_version(text)
}

/// `v1`, `v2.1`, `v1beta1`
pub(crate) fn is_version(text: &str) -> bool {
    let mut chars = text.chars();
    matches!(chars.next(), Some('v' | 'V')) && chars.next().is_some_and(|c| c.is_ascii_digit())
}

const VERBS: [&str; 44] = [
    "ack",
    "accept",
    "activate",
    "add",
    "approve",
    "authenticate",
    "authorize",
    "by",
    "cancel",
    "change",
    "check",
    "clear",
    "confirm",
    "copy",
    "count",
    "create",
    "delete",
    "disable",
    "enable",
    "export",
    "fetch",
    "find",
    "generate",
    "get",
    "import",
    "init",
    "list",
    "lookup",
    "move",
    "notify",
    "query",
    "refresh",
    "remove",
    "reset",
    "resolve",
    "search",
    "send",
    "set",
    "sync",
    "update",
    "upload",
    "validate",
    "verify",
    "download",
];

/// A verb, or a name that begins with one: what programs call what they do.
pub(crate) fn is_command(text: &str) -> bool {
    let joint = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let first = text.get(..joint).filter(|first| !first.is_empty());
    // `GetUserById`
    let first = first.map_or_else(
        || {
            let rest = text.get(1..).unwrap_or_default();
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            text.get(..end + 1).unwrap_or(text)
        },
        |first| first,
    );
    VERBS.contains(&first.to_ascii_lowercase().as_str())
}

/// Of several words: `get_by_name`, `getByName`.
pub(crate) fn has_joint(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next();
    chars.any(|c| matches!(c, '-' | '_' | '.') || c.is_ascii_uppercase())
}

/// `darkMode`: a name as programs have them.
pub(crate) fn is_camel(text: &str) -> bool {
    let joint = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let mut rest = text.chars().skip(joint);
    joint > 0
        && rest.next().is_some_and(|c| c.is_ascii_uppercase())
        && rest.next().is_some_and(|c| c.is_ascii_lowercase())
}

/// ISO 639-1, with those of three letters that user interfaces are translated to.
const LANGUAGES: &str = "aa ab af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de \
     dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz \
     ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li \
     ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os \
     pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te \
     tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu fil ast ckb \
     haw kab";

/// `en`, `pt-BR`, `zh_Hant`: a language tag (BCP 47) as paths have them.
pub(crate) fn is_language_tag(text: &str) -> bool {
    let mut parts = text.split(['-', '_']);
    let is_language = parts.next().is_some_and(|language| {
        let language = language.to_ascii_lowercase();
        LANGUAGES.split_ascii_whitespace().any(|l| l == language)
    });
    let is_subtag = |part: &str| {
        matches!(part.len(), 2 | 4) && part.bytes().all(|b| b.is_ascii_alphabetic())
            || part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit())
    };
    is_language && parts.clone().count() <= 2 && parts.all(is_subtag)
}

const UNCOUNTABLE: [&str; 24] = [
    "news",
    "status",
    "address",
    "access",
    "process",
    "progress",
    "series",
    "species",
    "analysis",
    "dns",
    "https",
    "business",
    "class",
    "settings",
    "statistics",
    "analytics",
    "logistics",
    "graphics",
    "sms",
    "gps",
    "aws",
    "cms",
    "pos",
    "ats",
];

pub(crate) fn is_plural(word: &str) -> bool {
    let word = last_word(word).to_ascii_lowercase();
    if UNCOUNTABLE.contains(&word.as_str()) {
        return false;
    }
    matches!(word.as_str(), "people" | "children" | "data" | "media" | "indices" | "criteria")
        || (word.len() > 2 && word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us"))
}

pub(crate) fn singular(word: &str) -> String {
    let lower = last_word(word).to_ascii_lowercase();
    let stem = |cut: usize, add: &str| {
        let end = word.len().saturating_sub(cut);
        format!("{}{add}", word.get(..end).unwrap_or(word))
    };
    if !is_plural(word) {
        return word.to_owned();
    }
    match lower.as_str() {
        "people" => stem(6, "person"),
        "children" => stem(3, ""),
        "indices" => stem(4, "ex"),
        "criteria" => stem(1, "on"),
        "data" | "media" => word.to_owned(),
        "movies" | "cookies" | "series" | "ties" => stem(1, ""),
        _ if lower.ends_with("ies") && lower.len() > 4 => stem(3, "y"),
        _ if ["sses", "shes", "ches", "xes", "zzes", "statuses"]
            .iter()
            .any(|e| lower.ends_with(e)) =>
        {
            stem(2, "")
        }
        _ => stem(1, ""),
    }
}

/// The part after the last joint of a compound (`line-items` -> `items`).
fn last_word(text: &str) -> &str {
    text.rsplit(['-', '_', '.', ' ']).next().unwrap_or(text)
}

/// `line-items` -> `LineItems`; only letters and digits remain.
pub(crate) fn pascal(text: &str) -> String {
    let mut out = String::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|p| !p.is_empty()) {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            out.push(first.to_ascii_uppercase());
            out.push_str(chars.as_str());
        }
    }
    out
}

/// `line-items` -> `lineItems`
pub(crate) fn camel(text: &str) -> String {
    let pascal = pascal(text);
    let mut chars = pascal.chars();
    match chars.next() {
        Some(first) => format!("{}{}", first.to_ascii_lowercase(), chars.as_str()),
        None => String::new(),
    }
}

/// `name`, or `name2`, `name3`, ... where it is taken; takes it.
pub(crate) fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 1u32;
    while !taken.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{name}{number}");
    }
    candidate
}

/// What a parameter is called whose values stand under this member of the bodies: `isbn`,
/// `userId`, `countryCode`.
pub(crate) fn of_member(member: &str, parent: Option<&str>) -> Option<String> {
    let name = camel(member);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() > 40 {
        return None;
    }
    let is_general = matches!(
        name.as_str(),
        "id" | "uuid"
            | "guid"
            | "uid"
            | "key"
            | "code"
            | "name"
            | "slug"
            | "number"
            | "value"
            | "label"
            | "ref"
            | "index"
    );
    let parent = parent.filter(|p| is_general && !p.is_empty());
    Some(match parent {
        Some(parent) if matches!(name.as_str(), "id" | "uuid" | "guid" | "uid") => {
            format!("{parent}Id")
        }
        Some(parent) => format!("{parent}{}", pascal(&name)),
        None => name,
    })
}

/// `listCarrierRates` -> `List carrier rates`
pub(crate) fn sentence(id: &str) -> String {
    let mut out = String::new();
    for c in id.chars() {
        if c.is_ascii_uppercase() && !out.ends_with(|p: char| p.is_ascii_uppercase() || p == ' ') {
            out.push(' ');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    match out.get(..1) {
        Some(first) => format!("{}{}", first.to_ascii_uppercase(), out.get(1..).unwrap_or("")),
        None => out,
    }
}

/// What an operation is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// A file, in a form or by itself.
    Upload,
    Other,
}

/// What an operation answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    List,
    /// There is a list in it, or it may be a map.
    MayList,
    One,
    Unknown,
}

/// A segment as far as names care.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Static(String),
    /// `{id}`, `{id}.json`, `{id}:cancel`
    Parameter {
        name: String,
        suffix: String,
    },
}

/// What is done by a single word.
const ACTIONS: [&str; 28] = [
    "archive",
    "assign",
    "clone",
    "complete",
    "deploy",
    "invite",
    "invoke",
    "login",
    "logout",
    "merge",
    "pause",
    "ping",
    "publish",
    "register",
    "reject",
    "rename",
    "restart",
    "restore",
    "resume",
    "retry",
    "revoke",
    "run",
    "share",
    "split",
    "start",
    "stop",
    "submit",
    "subscribe",
];

/// An operation's id, not yet unique.
///
/// `listUsers`, `getUser`, `createUser`, `replaceUser`, `updateUser`, `deleteUser`; `cancelOrder`
/// for `POST /orders/{orderId}/cancel`; `getConfigByEnvAndKey` for `GET /config/{env}/{key}`; what
/// is called as programs call it keeps its name: `getUserById` for `GET /rpc/getUserById`.
pub(crate) fn operation_id(method: &str, parts: &[Part], asks: Asks, answer: Answer) -> String {
    let nouns: Vec<&Part> =
        parts.iter().filter(|p| !matches!(p, Part::Static(t) if is_prefix(t))).collect();
    let is_parameter = |at: usize| matches!(nouns.get(at), Some(Part::Parameter { .. }));
    let last = nouns.len().saturating_sub(1);
    let is_item = is_parameter(last);
    // A resource is named in the singular where a parameter picks one of it.
    let mut words: Vec<String> = Vec::new();
    for (at, part) in nouns.iter().enumerate() {
        match part {
            Part::Static(text) if is_parameter(at + 1) => words.push(pascal(&singular(text))),
            Part::Static(text) => words.push(pascal(text)),
            Part::Parameter { .. } => {}
        }
    }
    let trailing: Vec<&str> = nouns.iter().rev().map_while(|p| name_of(p)).collect();
    if trailing.len() > 1 || trailing.len() == nouns.len() && !trailing.is_empty() {
        let names: Vec<String> = trailing.iter().rev().map(|name| pascal(name)).collect();
        words.push(format!("By{}", names.join("And")));
    }
    let last_static = match nouns.last() {
        Some(Part::Static(text)) => Some(text.as_str()),
        _ => None,
    };
    if let Some(Part::Parameter { suffix, .. }) = nouns.last()
        && let Some(action) = suffix.strip_prefix(':')
    {
        return format!("{}{}", camel(action), words.concat());
    }
    if let (Some(action), "get" | "post") = (last_static, method)
        && (asks != Asks::Upload || is_command(action))
        && let Some(id) = of_action(action, &words, last > 0 && is_parameter(last - 1), method)
    {
        return id;
    }
    let verb = match method {
        "get" if is_item => "get",
        "get" if answer == Answer::List => "list",
        "get" if answer != Answer::One && last_static.is_some_and(is_plural) => "list",
        "get" => "get",
        "post" if asks == Asks::Upload && last_static.is_some_and(|t| singular(t) != "upload") => {
            if let (Some(last), Some(text)) = (words.last_mut(), last_static) {
                *last = pascal(&singular(text));
            }
            "upload"
        }
        "post" if last_static.is_some_and(is_plural) => {
            if let (Some(last), Some(text)) = (words.last_mut(), last_static) {
                *last = pascal(&singular(text));
            }
            "create"
        }
        "put" => "replace",
        "patch" => "update",
        other => other,
    };
    if let Some(Part::Parameter { suffix, .. }) = nouns.last() {
        words.push(pascal(suffix));
    }
    let name = words.concat();
    format!("{verb}{}", if name.is_empty() { "Root".to_owned() } else { name })
}

fn name_of(part: &Part) -> Option<&str> {
    match part {
        Part::Parameter { name, .. } => Some(name),
        Part::Static(_) => None,
    }
}

/// The id of a call whose last segment says what is done; `words` are all of its nouns.
fn of_action(action: &str, words: &[String], is_of_item: bool, method: &str) -> Option<String> {
    let (_, before) = words.split_last()?;
    let own = camel(action);
    let is_compound = own.bytes().any(|b| b.is_ascii_uppercase());
    if is_command(action) && is_compound {
        return Some(own);
    }
    let is_verb = is_command(action) || ACTIONS.contains(&action.to_ascii_lowercase().as_str());
    // `POST /orders/{orderId}/cancel`: whatever it is called, something is done with one thing.
    let is_done = is_verb || (method == "post" && is_of_item && !is_plural(action));
    (is_done && !own.is_empty()).then(|| format!("{own}{}", before.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(method: &str, template: &str, answer: Answer) -> String {
        let parts: Vec<Part> = template
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| match s.strip_prefix('{').and_then(|s| s.split_once('}')) {
                Some((name, suffix)) => {
                    Part::Parameter { name: name.to_owned(), suffix: suffix.to_owned() }
                }
                None => Part::Static(s.to_owned()),
            })
            .collect();
        operation_id(method, &parts, Asks::Other, answer)
    }

    #[test]
    fn operations_are_called_what_they_do() {
        for (method, template, answer, expected) in [
            ("get", "/api/v1/users", Answer::List, "listUsers"),
            ("get", "/users", Answer::Unknown, "listUsers"),
            ("get", "/docs", Answer::One, "getDocs"),
            ("get", "/users/{userId}", Answer::One, "getUser"),
            ("post", "/users", Answer::One, "createUser"),
            ("put", "/users/{userId}", Answer::One, "replaceUser"),
            ("post", "/orders/{orderId}/cancel", Answer::One, "cancelOrder"),
            ("post", "/orders/{orderId}:cancel", Answer::One, "cancelOrder"),
            ("get", "/rpc/getUserById", Answer::One, "getUserById"),
            ("post", "/Users.svc/UpdateUser", Answer::One, "updateUser"),
            ("get", "/search", Answer::MayList, "search"),
            ("post", "/login", Answer::One, "login"),
            ("get", "/config/{env}/{key}", Answer::One, "getConfigByEnvAndKey"),
            ("get", "/repos/{owner}/{repo}/branches", Answer::List, "listRepoBranches"),
            ("get", "/{locale}/products/{slug}", Answer::One, "getProduct"),
            ("get", "/{name}", Answer::One, "getByName"),
            ("get", "/documents/{id}.xml", Answer::Unknown, "getDocumentXml"),
            ("get", "/", Answer::One, "getRoot"),
        ] {
            assert_eq!(id(method, template, answer), expected, "{method} {template}");
        }
    }

    #[test]
    fn files_are_uploaded() {
        let parts = |last: &str| {
            let name = "userId".to_owned();
            let id = Part::Parameter { name, suffix: String::new() };
            [Part::Static("users".to_owned()), id, Part::Static(last.to_owned())]
        };
        let of = |last| operation_id("post", &parts(last), Asks::Upload, Answer::Unknown);
        assert_eq!(of("photo"), "uploadUserPhoto");
        assert_eq!(of("documents"), "uploadUserDocument");
        assert_eq!(of("import"), "importUser");
        assert_eq!(of("uploads"), "createUserUpload");
    }

    #[test]
    fn ids_read_as_sentences() {
        assert_eq!(sentence("listCarrierRates"), "List carrier rates");
        assert_eq!(sentence("login"), "Login");
    }

    #[test]
    fn parameters_are_called_what_the_bodies_call_them() {
        let of = |member, parent| of_member(member, parent);
        assert_eq!(of("_id", Some("user")).as_deref(), Some("userId"));
        assert_eq!(of("code", Some("country")).as_deref(), Some("countryCode"));
        assert_eq!(of("postal_code", Some("area")).as_deref(), Some("postalCode"));
        assert_eq!(of("id", None).as_deref(), Some("id"));
        assert_eq!(of("42", Some("user")), None);
    }

    #[test]
    fn language_tags_are_known() {
        let tags = ["de", "en-US", "pt_BR", "zh-Hant", "es-419"];
        assert!(tags.iter().all(|t| is_language_tag(t)));
        let others = ["api", "users", "v1", "go-live", "xx", "en-pages"];
        assert!(!others.iter().any(|t| is_language_tag(t)));
    }
}
