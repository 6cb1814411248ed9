//! APIs and policies that the admin API adds to what the file configures. They are kept in the
//! state directory, so that a restart does not forget them. Agents that have one state directory, as
//! two have while one takes over from the other, add to one list: each change is made to what the
//! file has at that moment, and the others see it when they look at their files.
//!
//! An API becomes an upstream and a route, both named `api:ID`. Its policies make a set of that
//! name: the set `default`, with each policy in place of the one of its kind.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stoa_policy::config::{Policies, PolicySetConfig};

use super::{
    document::{
        Document, MatchDocument, PathDocument, RewriteDocument, RouteDocument, UpstreamDocument,
    },
    files::Files,
    upstreams::parse_url,
};
use crate::store::{StoreError, make_private_directory};

/// Of each kind.
const MOST: usize = 1000;
const LONGEST_TEXT: usize = 512;
/// For another agent to be done with a change of its own.
const LOCKED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum AdditionsError {
    #[error(
        "cannot use {file}, where the admin API's APIs and policies are kept: {reason}. Mend it, \
         or move it away: they are then gone"
    )]
    Broken { file: String, reason: String },
    #[error("cannot write {file}: {source}; make room, or give another --state-dir")]
    Write { file: String, source: io::Error },
    #[error(
        "another agent has been changing {file} for {} s, so nothing was changed here; try again, \
         or stop it if it hangs, or give this one another --state-dir", LOCKED_WITHIN.as_secs()
    )]
    Locked { file: String },
    #[error("{0}")]
    Directory(#[from] StoreError),
}

/// A field that is not as it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct Refused {
    pub field: &'static str,
    pub reason: String,
}

fn refused<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { field, reason: reason.into() })
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// The name, if none is given.
    #[serde(default)]
    pub id: String,
    pub name: String,
    /// The agent's, if none is given.
    #[serde(default)]
    pub tenant_id: String,
    /// Replaced by the path of `backend_url`, as STOA's gateway does.
    pub path_prefix: String,
    pub backend_url: String,
    /// None: any.
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub spec_hash: Option<String>,
    #[serde(default = "yes")]
    pub activated: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    pub id: String,
    pub name: String,
    pub policy_type: String,
    pub config: Value,
    /// Of two policies of a type for one API, the one with the higher number holds.
    #[serde(default)]
    pub priority: i64,
    /// None: every API that the admin API added and that has none of this type.
    #[serde(default)]
    pub api_id: Option<String>,
}

/// All of them, by id.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Additions {
    pub apis: BTreeMap<String, Api>,
    pub policies: BTreeMap<String, Policy>,
}

impl Api {
    /// Fills in what was left out, and refuses what cannot be meant.
    pub fn complete(mut self, tenant: &str) -> Result<Self, Refused> {
        complete_id(&mut self.id, &self.name)?;
        if self.tenant_id.is_empty() {
            tenant.clone_into(&mut self.tenant_id);
        }
        check_text("tenant_id", &self.tenant_id)?;
        if HeaderValue::from_str(&self.tenant_id).is_err() {
            return refused("tenant_id", "cannot be written in a header; use printable characters");
        }
        let path = &self.path_prefix;
        let is_plain = path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\{}".contains(&b))
            && !path.contains("//")
            && !path.split('/').any(|segment| segment == "." || segment == "..");
        if !is_plain || path.len() > LONGEST_TEXT {
            return refused("path_prefix", "is not a path such as /apis/acme/orders");
        }
        if let Err(reason) = split_url(&self.backend_url) {
            return refused("backend_url", reason);
        }
        for method in &mut self.methods {
            method.make_ascii_uppercase();
            if Method::from_bytes(method.as_bytes()).is_err() {
                return refused("methods", format!("has `{}`, which is none", shown(method)));
            }
        }
        if self.methods.len() > 32 {
            return refused("methods", "has more than there are; leave it out to mean any");
        }
        if let Some(hash) = &self.spec_hash {
            check_text("spec_hash", hash)?;
        }
        Ok(self)
    }

    fn key(&self) -> String {
        set_name(&self.id)
    }
}

/// Of the policies of an API, its upstream and its route.
fn set_name(id: &str) -> String {
    format!("api:{id}")
}

/// An id, made of the name where none is given.
fn complete_id(id: &mut String, name: &str) -> Result<(), Refused> {
    check_text("name", name)?;
    if id.is_empty() {
        *id = name.trim().to_lowercase().replace(' ', "-");
    }
    check_id(id)
}

/// Whether there was one of that id. `kind` is what they are.
fn put<T>(all: &mut BTreeMap<String, T>, id: String, one: T, kind: &str) -> Result<bool, Refused> {
    if all.len() >= MOST && !all.contains_key(&id) {
        return refused("id", format!("is one too many: there are {MOST} {kind}; delete some"));
    }
    Ok(all.insert(id, one).is_some())
}

fn check_id(id: &str) -> Result<(), Refused> {
    let is_name = (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
        && id != "."
        && id != "..";
    match is_name {
        true => Ok(()),
        false => refused("id", "is to have 1 to 128 of the characters A-Z a-z 0-9 . _ - :"),
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), Refused> {
    match text.trim().is_empty() || text.len() > LONGEST_TEXT {
        true => refused(field, format!("is to have 1 to {LONGEST_TEXT} bytes")),
        false => Ok(()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// `http://HOST:PORT/PATH`: what is connected to, and what stands in place of the prefix.
fn split_url(url: &str) -> Result<(String, String), String> {
    let wrong = || "is not http://HOST:PORT/PATH or https://HOST:PORT/PATH".to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(
            "has a user in it, which would be shown; give scheme, host, port and path".into()
        );
    }
    if !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b))
        || url.len() > LONGEST_TEXT
    {
        return Err(wrong());
    }
    let base = format!("{scheme}://{authority}");
    parse_url(&base).map_err(|_| wrong())?;
    let path = path.trim_end_matches('/');
    Ok((base, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

/// The kinds of policy by their names; `jwt` is short for an identity of that method.
const TYPES: &str = "jwt, identity, tenant, rate_limit, quota, scopes, rego, guardrails, \
                     contract, circuit_breaker";

impl Policy {
    pub fn complete(mut self) -> Result<Self, Refused> {
        complete_id(&mut self.id, &self.name)?;
        if let Some(api) = &self.api_id {
            check_text("api_id", api)?;
        }
        if !self.config.is_object() {
            return refused("config", "is to be an object: the policy as the file would have it");
        }
        self.apply(&mut PolicySetConfig::default())?;
        Ok(self)
    }

    /// Puts it into a set, in place of what was of its kind.
    fn apply(&self, set: &mut PolicySetConfig) -> Result<(), Refused> {
        // Whoever may use the admin API may not read the node's files by it.
        let files = ["file", "files"].into_iter().find(|key| self.config.get(key).is_some());
        if let Some(key) = files {
            return refused(
                "config",
                format!(
                    "names a file in `{key}`: give the text itself, or use the file's policies"
                ),
            );
        }
        match self.policy_type.as_str() {
            "jwt" => {
                let methods = serde_json::json!({"methods": [{"jwt": self.config}]});
                set.identity = Some(read(methods)?);
            }
            "identity" => set.identity = Some(read(self.config.clone())?),
            "tenant" => set.tenant = Some(read(self.config.clone())?),
            "rate_limit" => set.rate_limit = Some(read(rate_limit_of(&self.config))?),
            "quota" => set.quota = Some(read(self.config.clone())?),
            "scopes" => set.scopes = Some(read(self.config.clone())?),
            "rego" => set.rego = Some(read(self.config.clone())?),
            "guardrails" => set.guardrails = Some(read(self.config.clone())?),
            "contract" => set.contract = Some(read(self.config.clone())?),
            "circuit_breaker" => set.circuit_breaker = Some(read(self.config.clone())?),
            other => {
                let other = shown(other);
                return refused("policy_type", format!("`{other}` is not one of: {TYPES}"));
            }
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(config: Value) -> Result<T, Refused> {
    serde_path_to_error::deserialize(config).or_else(|error| {
        let at = error.path().to_string();
        refused("config", format!("is not as it should be, at `{at}`: {}", error.inner()))
    })
}

/// STOA's `{limit, window_secs}`, or one limit without a scope, is that of each consumer.
fn rate_limit_of(config: &Value) -> Value {
    let Value::Object(given) = config else { return config.clone() };
    let mut limit = Map::new();
    let mut rest = Map::new();
    for (key, value) in given {
        let name = match key.as_str() {
            "limit" => "requests",
            "window_secs" => "window_seconds",
            name @ ("requests"
            | "window_seconds"
            | "requests_per_second"
            | "requests_per_minute"
            | "burst") => name,
            _ => {
                rest.insert(key.clone(), value.clone());
                continue;
            }
        };
        limit.insert(name.to_owned(), value.clone());
    }
    if !limit.is_empty() && !rest.contains_key("consumer") {
        rest.insert("consumer".to_owned(), Value::Object(limit));
        return Value::Object(rest);
    }
    config.clone()
}

impl Additions {
    /// Whether there was one of that id.
    pub fn put_api(&mut self, api: Api) -> Result<bool, Refused> {
        put(&mut self.apis, api.id.clone(), api, "APIs")
    }

    pub fn put_policy(&mut self, policy: Policy) -> Result<bool, Refused> {
        put(&mut self.policies, policy.id.clone(), policy, "policies")
    }

    /// Whether some request is decided by it.
    pub fn is_in_force(&self, policy: &Policy) -> bool {
        self.apis
            .values()
            .filter(|api| api.activated)
            .any(|api| self.policies_of(&api.id).values().any(|holding| holding.id == policy.id))
    }

    /// By type: those of the API itself win over those of all, then the higher priority does.
    fn policies_of(&self, api: &str) -> BTreeMap<&str, &Policy> {
        let mut of_type: BTreeMap<&str, &Policy> = BTreeMap::new();
        let rank = |policy: &Policy| (policy.api_id.is_some(), policy.priority);
        for policy in self.policies.values() {
            if policy.api_id.as_deref().is_some_and(|id| id != api) {
                continue;
            }
            // `jwt` is an identity.
            let kind = match policy.policy_type.as_str() {
                "jwt" => "identity",
                kind => kind,
            };
            let holding = of_type.entry(kind).or_insert(policy);
            if rank(policy) > rank(holding) {
                *holding = policy;
            }
        }
        of_type
    }

    /// The upstreams and routes of the APIs, beside those of the file.
    pub(super) fn add_to(&self, document: &mut Document) {
        document.made = self.clone();
        for api in self.apis.values().filter(|api| api.activated) {
            // It was looked at when it was added.
            let Ok((url, path)) = split_url(&api.backend_url) else { continue };
            let prefix = Some(api.path_prefix.clone());
            let matching = |method: Option<&String>| MatchDocument {
                path: Some(PathDocument { prefix: prefix.clone(), ..PathDocument::default() }),
                method: method.cloned(),
                ..MatchDocument::default()
            };
            let matches = match api.methods.is_empty() {
                true => vec![matching(None)],
                false => api.methods.iter().map(|method| matching(Some(method))).collect(),
            };
            document.upstreams.insert(api.key(), UpstreamDocument::of_url(&url));
            document.routes.push(RouteDocument {
                name: Some(api.key()),
                tenant: Some(api.tenant_id.clone()),
                policies: (!self.policies_of(&api.id).is_empty()).then(|| api.key()),
                matches,
                upstream: Some(api.key()),
                rewrite: Some(RewriteDocument { prefix: Some(path), ..RewriteDocument::default() }),
                ..RouteDocument::default()
            });
        }
    }

    /// The sets of the APIs that have policies. Each is `default` with those in place of its own.
    pub fn add_sets(&self, sets: &mut Policies, default: &str) -> Result<(), String> {
        for api in self.apis.values().filter(|api| api.activated) {
            let policies = self.policies_of(&api.id);
            if policies.is_empty() {
                continue;
            }
            let mut set = sets.get(default).cloned().unwrap_or_default();
            for policy in policies.values() {
                policy.apply(&mut set).map_err(|refused| {
                    format!("cannot have `{}` of the admin API: {refused}", policy.id)
                })?;
            }
            sets.insert(api.key(), set);
        }
        Ok(())
    }
}

/// Where they are kept: `admin.json` of the state directory.
#[derive(Debug)]
pub struct AdditionsFile {
    directory: PathBuf,
    in_force: Mutex<Additions>,
}

impl AdditionsFile {
    /// Nothing is read yet, and nothing is made as long as nothing is added.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), in_force: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("admin.json")
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// What it has now, whoever has written it.
    pub fn read(&self, files: &mut Files) -> Result<Additions, AdditionsError> {
        let broken = |reason: String| AdditionsError::Broken { file: self.shown(), reason };
        match files.read(&self.path()) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| broken(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Additions::default()),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    pub fn in_force(&self) -> Additions {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn put_in_force(&self, additions: Additions) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = additions;
    }

    /// Begins a change: until it is dropped, no other agent makes one. Blocks.
    #[allow(clippy::disallowed_methods, reason = "changes are made where it may block")]
    pub fn begin(&self) -> Result<Changing<'_>, AdditionsError> {
        make_private_directory(&self.directory)?;
        let failed = |source| AdditionsError::Write { file: self.shown(), source };
        // The file itself is replaced with each change, and its lock would go with it. The kernel
        // gives this one back when its holder dies.
        let mut options = fs::OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(self.directory.join("admin.lock")).map_err(failed)?;
        let deadline = Instant::now() + LOCKED_WITHIN;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Changing { file: self, _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(AdditionsError::Locked { file: self.shown() });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}

/// A change under way.
#[derive(Debug)]
pub struct Changing<'a> {
    file: &'a AdditionsFile,
    _lock: File,
}

impl Changing<'_> {
    /// All of them or none: they are on the disk when it returns.
    pub fn keep(&self, additions: &Additions, files: &mut Files) -> Result<(), AdditionsError> {
        let (directory, path) = (&self.file.directory, self.file.path());
        let written = write(directory, &path, additions);
        let text =
            written.map_err(|source| AdditionsError::Write { file: self.file.shown(), source })?;
        files.remember(&path, Some(&text));
        Ok(())
    }
}

/// Policies may hold secrets: only the agent reads the file.
fn write(directory: &Path, file: &Path, additions: &Additions) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(additions)?;
    let new = directory.join("admin.json.new");
    let mut options = fs::OpenOptions::new();
    let mut writer = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writer.write_all(&text)?;
    writer.sync_all()?;
    fs::rename(&new, file)?;
    File::open(directory)?.sync_all()?;
    Ok(text)
}

#[cfg(test)]
#[path = "additions_tests.rs"]
mod tests;
