//! From knowledge to the documents that a person or a machine reads.

use stoa_contract::{
    infer::{InferOptions, infer},
    knowledge::ServiceKnowledge,
    openapi, summary, uac,
};

/// A service's contract, in every form, as of one moment.
pub struct Rendered {
    pub service: String,
    pub openapi_yaml: String,
    pub openapi_json: String,
    /// `None` where no operation is known: UAC needs one endpoint.
    pub uac_json: Option<String>,
    pub table: String,
    pub operations: usize,
    pub exchanges: u64,
    pub confidence: f64,
    /// Seconds since the Unix epoch.
    pub seen: Option<(u64, u64)>,
}

/// Costs as much as the knowledge is large: not for the analysis thread or the async runtime.
pub fn render(service: &str, tenant: &str, knowledge: &ServiceKnowledge) -> Rendered {
    let options = InferOptions { service: service.to_owned(), ..InferOptions::default() };
    let contract = infer(knowledge, &options);
    let uac_options = uac::UacOptions { tenant: tenant.to_owned(), ..uac::UacOptions::default() };
    Rendered {
        service: service.to_owned(),
        openapi_yaml: openapi::to_yaml(&contract),
        openapi_json: openapi::to_json(&contract),
        uac_json: uac::to_value(&contract, &uac_options).map(|value| format!("{value:#}\n")),
        table: summary::table(&contract),
        operations: contract.operations.len(),
        exchanges: knowledge.exchanges(),
        confidence: contract.confidence,
        seen: knowledge.seen(),
    }
}
