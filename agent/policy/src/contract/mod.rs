//! Contract validation: requests and responses against an approved `OpenAPI` 3 or UAC contract.

mod document;
mod json;
mod operation;
mod template;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use self::{
    document::read_contract,
    operation::{Operation, Problem},
    template::Templates,
};
use crate::{
    context::{RequestContext, ResponseContext},
    decision::{Decision, Denial, Note, PolicyKind, Verdict},
    engine::BodyNeed,
    error::Refusal,
    outside::Outside,
    units::Size,
};

/// The contract is one of `file`, `service` and `document`.
///
/// ```yaml
/// contract:
///   file: contracts/orders.openapi.yaml
///   requests: block
///   responses: report
///   unknown_operations: block
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ContractConfig {
    /// A file of `OpenAPI` 3.0 or 3.1, or UAC, in YAML or JSON.
    pub file: Option<String>,
    /// The service whose approved contract it is.
    pub service: Option<String>,
    /// The contract itself.
    pub document: Option<Value>,
    pub requests: Mode,
    pub responses: Mode,
    /// Requests to paths and methods that the contract does not have; `requests` if not given.
    pub unknown_operations: Option<Mode>,
    /// Query parameters that the contract does not have.
    pub unknown_parameters: Mode,
    /// What comes before the contract's paths; if not given, the paths of its servers, or nothing.
    pub base_path: Option<String>,
    /// Check `format` too: dates, addresses, UUIDs.
    pub formats: bool,
    /// Bodies are read up to so much; longer ones break the contract.
    pub up_to: Size,
}

impl Default for ContractConfig {
    fn default() -> Self {
        Self {
            file: None,
            service: None,
            document: None,
            requests: Mode::Report,
            responses: Mode::Report,
            unknown_operations: None,
            unknown_parameters: Mode::Off,
            base_path: None,
            formats: true,
            up_to: Size(1 << 20),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Off,
    /// Let it pass, and say so in logs and metrics.
    #[default]
    Report,
    Block,
}

/// An operation of the contract of a set, valid for the engine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(usize);

#[derive(Debug)]
pub struct Contract {
    requests: Mode,
    responses: Mode,
    unknown_operations: Mode,
    unknown_parameters: Mode,
    up_to: usize,
    /// Tried in order; never empty.
    base_paths: Vec<String>,
    templates: Templates,
    operations: Vec<Operation>,
}

impl Contract {
    pub fn build(config: &ContractConfig, outside: &Outside) -> Result<Self, Refusal> {
        let document = load(config, outside)?;
        let read = read_contract(&document, config.formats)?;
        if config.requests == Mode::Off && config.responses == Mode::Off {
            return Err(Refusal::new(
                "",
                "checks neither requests nor responses",
                "set requests or responses to report or block, or remove the section",
            ));
        }
        Ok(Self {
            requests: config.requests,
            responses: config.responses,
            unknown_operations: config.unknown_operations.unwrap_or(config.requests),
            unknown_parameters: config.unknown_parameters,
            up_to: config.up_to.0,
            base_paths: match &config.base_path {
                Some(base) => vec![base.trim_end_matches('/').to_owned()],
                None => read.base_paths,
            },
            templates: read.templates,
            operations: read.operations,
        })
    }

    pub fn body_need(&self, request: &RequestContext<'_>) -> BodyNeed {
        let operation = self.find(request).ok().and_then(|(id, _)| self.operations.get(id.0));
        match operation {
            Some(operation) if self.requests != Mode::Off && operation.reads_body() => {
                BodyNeed::UpTo(self.up_to)
            }
            _ => BodyNeed::None,
        }
    }

    pub fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        // Before a request of another origin, browsers ask; no contract says so (Fetch, 3.3.2).
        if *request.method == Method::OPTIONS
            && request.headers.contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return Ok(());
        }
        let (id, values) = match self.find(request) {
            Ok(found) => found,
            Err(unknown) => return unknown.settle(self.unknown_operations, decision),
        };
        decision.operation = Some(id);
        decision.obligations.validate_response = self.responses != Mode::Off;
        let Some(operation) = self.operations.get(id.0) else { return Ok(()) };
        if self.requests != Mode::Off {
            let problems = operation.check_request(request, &values);
            settle(problems, self.requests, StatusCode::BAD_REQUEST, "request_contract", decision)?;
        }
        if self.unknown_parameters != Mode::Off {
            let problems = operation.unknown_parameters(request.query);
            let mode = self.unknown_parameters;
            settle(problems, mode, StatusCode::BAD_REQUEST, "parameter_unknown", decision)?;
        }
        Ok(())
    }

    pub fn response_body_need(
        &self,
        operation: Option<OperationId>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> BodyNeed {
        let operation = operation.and_then(|id| self.operations.get(id.0));
        match operation {
            Some(operation)
                if self.responses != Mode::Off && operation.reads_response(status, headers) =>
            {
                BodyNeed::UpTo(self.up_to)
            }
            _ => BodyNeed::None,
        }
    }

    pub fn check_response(
        &self,
        operation: Option<OperationId>,
        response: &ResponseContext<'_>,
    ) -> Result<Option<Note>, Denial> {
        let Some(operation) = operation.and_then(|id| self.operations.get(id.0)) else {
            return Ok(None);
        };
        if self.responses == Mode::Off {
            return Ok(None);
        }
        let Some(problem) = operation.check_response(response).into_iter().next() else {
            return Ok(None);
        };
        match self.responses {
            Mode::Block => Err(Denial {
                policy: PolicyKind::Contract,
                status: StatusCode::BAD_GATEWAY,
                code: "response_contract",
                // What the service did wrong is not the client's to know.
                reason: "The response breaks the service's contract".into(),
            }),
            _ => Ok(Some(problem.into_note("response_contract"))),
        }
    }

    fn find(&self, request: &RequestContext<'_>) -> Result<(OperationId, Vec<String>), Unknown> {
        let mut unknown = Unknown::Path;
        for base in &self.base_paths {
            let Some(rest) = request.path.strip_prefix(base.as_str()) else { continue };
            if !rest.is_empty() && !rest.starts_with('/') {
                continue;
            }
            let rest = if rest.is_empty() { "/" } else { rest };
            let Some((methods, values)) = self.templates.find(rest) else { continue };
            let by = |wanted: &Method| {
                methods.iter().find(|(method, _)| method == wanted).map(|(_, id)| *id)
            };
            // RFC 9110 section 9.3.2: HEAD is GET without the content.
            let id = by(request.method)
                .or_else(|| (*request.method == Method::HEAD).then(|| by(&Method::GET)).flatten());
            match id {
                Some(id) => return Ok((OperationId(id), values)),
                None => unknown = Unknown::Method,
            }
        }
        Err(unknown)
    }
}

#[derive(Clone, Copy)]
enum Unknown {
    Path,
    Method,
}

impl Unknown {
    fn settle(self, mode: Mode, decision: &mut Decision) -> Verdict {
        let (status, reason) = match self {
            Self::Path => (StatusCode::NOT_FOUND, "The contract has no such path"),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "The contract has no such method on this path")
            }
        };
        let problem = Problem { place: String::new(), what: reason.to_owned() };
        settle(vec![problem], mode, status, "operation_unknown", decision)
    }
}

fn settle(
    problems: Vec<Problem>,
    mode: Mode,
    status: StatusCode,
    code: &'static str,
    decision: &mut Decision,
) -> Verdict {
    let Some(problem) = problems.into_iter().next() else { return Ok(()) };
    match mode {
        Mode::Off => Ok(()),
        Mode::Report => {
            decision.notes.push(problem.into_note(code));
            Ok(())
        }
        Mode::Block => Err(Denial {
            policy: PolicyKind::Contract,
            status,
            code,
            reason: problem.to_string().into(),
        }),
    }
}

/// The document, from where it is.
fn load(config: &ContractConfig, outside: &Outside) -> Result<Value, Refusal> {
    let documents = || {
        outside.documents.as_ref().ok_or_else(|| {
            Refusal::new("", "documents cannot be read here", "give the contract under `document`")
        })
    };
    let (key, text) = match (&config.file, &config.service, &config.document) {
        (None, None, Some(document)) => return Ok(document.clone()),
        (Some(file), None, None) => ("file", documents()?.read_file(file)),
        (None, Some(service), None) => ("service", documents()?.read_contract(service)),
        _ => {
            return Err(Refusal::new(
                "",
                "names no contract, or several",
                "write one of file, service and document",
            ));
        }
    };
    let text = text.map_err(|reason| {
        Refusal::new(key, reason, "name a contract that is there and may be read")
    })?;
    // JSON is YAML.
    serde_norway::from_str(&text).map_err(|error| {
        Refusal::new(key, format!("is neither YAML nor JSON: {error}"), "repair the document")
    })
}

#[cfg(test)]
mod tests;
