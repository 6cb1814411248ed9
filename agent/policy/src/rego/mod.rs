//! Rego policies: evaluated in process by regorus, or by a real OPA.

mod builtins;
mod calls;
mod evaluator;
mod input;
mod jwt;
mod keys;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use regorus::Value;
use serde::Deserialize;

pub use self::input::action_of;

use self::evaluator::{Budget, Compiled};
use crate::{
    context::RequestContext,
    counters::{OnLoss, Waiting},
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    outside::Documents,
    units::Span,
};

/// The policy of STOA's scopes and roles, for sets that give none of their own.
pub const DEFAULT_POLICY: &str = include_str!("default.rego");

/// The `rego` section of a policy set.
///
/// ```yaml
/// rego:
///   files: [authz.rego, roles.rego]
///   data: {teams: {orders: [ada]}}
///   query: data.acme.authz.allow
/// ```
///
/// The query's value is `true`, `false`, or an object `{"allow": true, "status": 403, "message":
/// "...", "headers": {"X-Reason": "..."}}`. Undefined is no.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RegoConfig {
    /// Files of policy text. With neither `files` nor `policy`, the default policy.
    pub files: Vec<String>,
    /// Policy text.
    pub policy: Option<String>,
    /// What the policy sees as `data`.
    pub data: serde_json::Map<String, serde_json::Value>,
    pub query: String,
    /// Asked for a text when the query says no. Where the policy has no such rule, nothing is.
    pub reason_query: Option<String>,
    /// Policies in the syntax from before OPA 1.0.
    pub v0: bool,
    /// Who evaluates. Without it, OPA if there is one (`--opa-endpoint`) and no policy is given.
    pub engine: Option<RegoEngine>,
    /// Instructions that one evaluation may run.
    pub max_instructions: usize,
    /// Time that one evaluation may take.
    pub timeout: Span,
    /// When OPA does not answer: `open` lets requests pass.
    pub on_loss: RegoOnLoss,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RegoEngine {
    Embedded,
    Opa,
}

/// Closed unless said otherwise: this is who decides, not a counter.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct RegoOnLoss(pub OnLoss);

impl Default for RegoConfig {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            policy: None,
            data: serde_json::Map::new(),
            query: "data.stoa.authz.allow".to_owned(),
            reason_query: None,
            v0: false,
            engine: None,
            max_instructions: 250_000,
            timeout: Span(Duration::from_millis(100)),
            on_loss: RegoOnLoss(OnLoss::Closed),
        }
    }
}

/// A real OPA.
pub trait RemoteOpa: Send + Sync + fmt::Debug {
    /// The value of a rule (`data.stoa.authz.allow`) for `input`, a JSON document; `None` if it is
    /// undefined. Answers within a bounded time.
    fn evaluate<'a>(
        &'a self,
        rule: &'a str,
        input: &'a str,
    ) -> Waiting<'a, Result<Option<serde_json::Value>, OpaUnavailable>>;
}

/// OPA did not answer, or with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("OPA does not answer")]
pub struct OpaUnavailable;

#[derive(Debug)]
pub struct Rego {
    rule: String,
    reason_rule: Option<String>,
    evaluation: Evaluation,
    on_loss: OnLoss,
}

#[derive(Debug)]
enum Evaluation {
    Embedded(Box<Compiled>),
    Opa(Arc<dyn RemoteOpa>),
}

const DECISION: usize = 0;
const REASON: usize = 1;

impl Rego {
    pub fn build(
        config: &RegoConfig,
        documents: Option<&dyn Documents>,
        opa: Option<Arc<dyn RemoteOpa>>,
    ) -> Result<Self, Refusal> {
        let has_policy = config.policy.is_some() || !config.files.is_empty();
        let engine = config.engine.unwrap_or(match opa {
            Some(_) if !has_policy => RegoEngine::Opa,
            _ => RegoEngine::Embedded,
        });
        let reason_rule = config.reason_query.clone().or_else(|| {
            let (package, _) = config.query.rsplit_once('.')?;
            Some(format!("{package}.denial_reason"))
        });
        let rule = config.query.clone();
        let on_loss = config.on_loss.0;
        match (engine, opa) {
            (RegoEngine::Opa, Some(opa)) => {
                Ok(Self { rule, reason_rule, evaluation: Evaluation::Opa(opa), on_loss })
            }
            (RegoEngine::Opa, None) => Err(Refusal::new(
                "engine",
                "is `opa`, and there is none",
                "give its address with --opa-endpoint",
            )),
            (RegoEngine::Embedded, _) => {
                let compiled = compile(config, &reason_rule, documents)?;
                let evaluation = Evaluation::Embedded(Box::new(compiled.0));
                Ok(Self { rule, reason_rule: compiled.1, evaluation, on_loss })
            }
        }
    }

    /// Whether regorus's virtual machine runs it, rather than its interpreter.
    pub fn is_for_machine(&self) -> bool {
        matches!(&self.evaluation, Evaluation::Embedded(compiled) if compiled.is_for_machine())
    }

    /// The query's value for any input, `None` if it is undefined; for tools and tests. Only for
    /// policies that are evaluated here.
    pub fn evaluate_json(
        &self,
        input: &serde_json::Value,
    ) -> anyhow::Result<Option<serde_json::Value>> {
        let Evaluation::Embedded(compiled) = &self.evaluation else {
            anyhow::bail!("this policy is evaluated by a real OPA");
        };
        match compiled.evaluate(DECISION, Value::from(input.clone()))? {
            Value::Undefined => Ok(None),
            value => Ok(Some(serde_json::from_str(&value.to_json_str()?)?)),
        }
    }

    pub async fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        let input = input::document(request, decision);
        let answer = match &self.evaluation {
            Evaluation::Embedded(compiled) => self.ask_embedded(compiled, input),
            Evaluation::Opa(opa) => match self.ask_opa(&**opa, &input).await {
                Ok(answer) => Ok(answer),
                Err(OpaUnavailable) if self.on_loss == OnLoss::Open => {
                    decision.note(PolicyKind::Rego, "opa_unavailable");
                    return Ok(());
                }
                Err(OpaUnavailable) => Err(StatusCode::SERVICE_UNAVAILABLE),
            },
        };
        let answer = answer.map_err(|status| Denial {
            policy: PolicyKind::Rego,
            status,
            code: "policy_failed",
            reason: "The policy could not be evaluated".into(),
        })?;
        if answer.is_allowed {
            decision.headers_to_set.extend(answer.headers);
            return Ok(());
        }
        decision.response_headers.extend(answer.headers);
        Err(Denial {
            policy: PolicyKind::Rego,
            status: answer.status.unwrap_or(StatusCode::FORBIDDEN),
            code: "policy_denied",
            reason: answer.message.map_or(Cow::Borrowed("Denied by policy"), Cow::Owned),
        })
    }

    fn ask_embedded(&self, compiled: &Compiled, input: Value) -> Result<Answer, StatusCode> {
        let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
        let value = compiled.evaluate(DECISION, input.clone()).map_err(failed)?;
        let mut answer = Answer::read(value).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        if !answer.is_allowed && answer.message.is_none() && self.reason_rule.is_some() {
            // The decision stands without its reason.
            answer.message = compiled.evaluate(REASON, input).ok().and_then(read_message);
        }
        Ok(answer)
    }

    async fn ask_opa(&self, opa: &dyn RemoteOpa, input: &Value) -> Result<Answer, OpaUnavailable> {
        let input = input.to_json_str().map_err(|_| OpaUnavailable)?;
        let value = opa.evaluate(&self.rule, &input).await?;
        let mut answer =
            Answer::read(value.map_or(Value::Undefined, Value::from)).ok_or(OpaUnavailable)?;
        if let (false, None, Some(rule)) = (answer.is_allowed, &answer.message, &self.reason_rule) {
            let reason = opa.evaluate(rule, &input).await.ok().flatten();
            answer.message = reason.map(Value::from).and_then(read_message);
        }
        Ok(answer)
    }
}

/// What a policy answered, whichever shape it has.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    is_allowed: bool,
    status: Option<StatusCode>,
    message: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// `None`: neither yes nor no.
    fn read(value: Value) -> Option<Self> {
        match &value {
            Value::Undefined => return Some(Self::default()),
            Value::Bool(is_allowed) => {
                return Some(Self { is_allowed: *is_allowed, ..Self::default() });
            }
            _ => {}
        }
        let object = value.as_object().ok()?;
        let field = |name: &str| object.get(&Value::from(name));
        let is_allowed = match field("allow").or_else(|| field("allowed")) {
            None => false,
            Some(Value::Bool(is_allowed)) => *is_allowed,
            Some(_) => return None,
        };
        let status = field("status").or_else(|| field("http_status"));
        let status = status
            .and_then(|status| StatusCode::from_u16(status.as_u16().ok()?).ok())
            .filter(|status| status.as_u16() >= 400);
        let message = ["message", "denial_reason", "reason", "body"]
            .into_iter()
            .find_map(|name| read_message(field(name)?.clone()));
        let headers = field("headers").and_then(|headers| headers.as_object().ok());
        let headers = headers.into_iter().flat_map(|headers| headers.iter()).filter_map(header);
        Some(Self { is_allowed, status, message, headers: headers.collect() })
    }
}

/// Headers that frame the message are not a policy's to set.
fn header((name, value): (&Value, &Value)) -> Option<(HeaderName, HeaderValue)> {
    const FRAMING: [&str; 7] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let name = HeaderName::try_from(&**name.as_string().ok()?).ok()?;
    let value = HeaderValue::try_from(&**value.as_string().ok()?).ok()?;
    (!FRAMING.contains(&name.as_str())).then_some((name, value))
}

/// A text, or the first of a set or an array of texts.
fn read_message(value: Value) -> Option<String> {
    let texts: Vec<&Value> = match &value {
        Value::String(_) => vec![&value],
        Value::Array(texts) => texts.iter().collect(),
        Value::Set(texts) => texts.iter().collect(),
        _ => return None,
    };
    Some(texts.first()?.as_string().ok()?.to_string())
}

/// The policy, and the rule for reasons if it has one.
fn compile(
    config: &RegoConfig,
    reason_rule: &Option<String>,
    documents: Option<&dyn Documents>,
) -> Result<(Compiled, Option<String>), Refusal> {
    let mut texts: Vec<(String, Cow<'_, str>)> = Vec::new();
    for file in &config.files {
        let read = documents.map(|documents| documents.read_file(file));
        let text = read.unwrap_or_else(|| Err("no files can be read here".to_owned()));
        let refused =
            |reason| Refusal::new("files", format!("`{file}`: {reason}"), "make the file readable");
        texts.push((file.clone(), text.map_err(refused)?.into()));
    }
    if let Some(text) = &config.policy {
        texts.push(("policy".to_owned(), text.into()));
    }
    if texts.is_empty() {
        texts.push(("default.rego".to_owned(), DEFAULT_POLICY.into()));
    }

    let refusal = |key: &str, error: anyhow::Error, remedy: &str| {
        // regorus draws the place in the text over several lines.
        let reason = error.to_string();
        Refusal::new(key, format!("cannot be loaded: {}", reason.trim()), remedy)
    };
    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(config.v0);
    // As OPA: a builtin that fails is undefined.
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    for (file, text) in &texts {
        engine
            .add_policy(file.clone(), text.clone().into_owned())
            .map_err(|e| refusal("policy", e, "mend the policy; `opa check` shows the same"))?;
    }
    refuse_bad_calls(&engine, &texts)?;
    for (name, arguments) in builtins::ours() {
        let mut host = builtins::Host::default();
        let call = move |arguments: Vec<Value>| host.call(name, &arguments);
        engine
            .add_extension(name.to_owned(), arguments, Box::new(call))
            .map_err(|e| refusal("policy", e, "report this"))?;
    }
    engine
        .add_data(Value::from(serde_json::Value::Object(config.data.clone())))
        .map_err(|e| refusal("data", e, "data must not have what a rule is called"))?;

    // Evaluated once, so that what regorus finds only then is found now.
    engine.set_input(Value::new_object());
    engine.eval_rule(config.query.clone()).map_err(|e| {
        refusal("query", e, "name a rule of the policy, such as data.stoa.authz.allow")
    })?;
    let has_reason = |rule: &&String| {
        config.reason_query.is_some() || engine.clone().eval_rule((*rule).clone()).is_ok()
    };
    let reason_rule = reason_rule.as_ref().filter(has_reason).cloned();
    if let Some(rule) = &reason_rule {
        engine
            .eval_rule(rule.clone())
            .map_err(|e| refusal("reason_query", e, "name a rule of the policy"))?;
    }
    let rules = std::iter::once(config.query.clone()).chain(reason_rule.clone()).collect();
    let budget = Budget { instructions: config.max_instructions, time: config.timeout.0 };
    // The virtual machine takes an undefined rule for a value (`[x | x := undefined_rule]`), so it
    // gets only the policy that it is known to evaluate as OPA does.
    let is_default = texts.iter().all(|(_, text)| text == DEFAULT_POLICY);
    let compiled = Compiled::new(engine, rules, budget, is_default)
        .map_err(|e| refusal("policy", e, "mend the policy; `opa check` shows the same"))?;
    Ok((compiled, reason_rule))
}

fn refuse_bad_calls(
    engine: &regorus::Engine,
    texts: &[(String, Cow<'_, str>)],
) -> Result<(), Refusal> {
    let unreadable = |e: String| {
        Refusal::new("policy", format!("its syntax tree cannot be read: {e}"), "report this")
    };
    let trees = engine.get_ast_as_json().map_err(|e| unreadable(e.to_string()))?;
    let trees = serde_json::from_str(&trees).map_err(|e| unreadable(e.to_string()))?;
    let texts: Vec<&str> = texts.iter().map(|(_, text)| &**text).collect();
    let Some(bad) = calls::find_bad(&trees, &texts) else { return Ok(()) };
    let place = format!("{}:{} calls `{}`", bad.file, bad.line, bad.name);
    Err(match builtins::why_refused(&bad.name) {
        Some(why) => Refusal::new("policy", format!("{place}, which is not allowed here"), why),
        None => Refusal::new(
            "policy",
            format!("{place}, which this build does not have"),
            "use another builtin, or a real OPA (--opa-endpoint)",
        ),
    })
}

#[cfg(test)]
mod tests;
