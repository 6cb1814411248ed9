//! The contract of the demo service is the one that its source has.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Result, ensure};
use sandbox::{Agent, AgentOptions, shopper};
use serde_json::Value;
use system_tests::stage;

const PORT: u16 = 8000;

/// Every operation of `demo-service` that the shopper uses; `{}` for a parameter.
const OPERATIONS: [&str; 16] = [
    "delete /v1/customers/{}/orders/{}",
    "get /healthz",
    "get /v1/customers/by-email/{}",
    "get /v1/customers/{}",
    "get /v1/customers/{}/orders",
    "get /v1/customers/{}/orders/{}",
    "get /v1/products",
    "get /v1/products/{}",
    "get /v1/products/{}/reviews",
    "get /v1/shipments/{}",
    "patch /v1/customers/{}",
    "post /v1/customers",
    "post /v1/customers/{}/orders",
    "post /v1/products/{}/reviews",
    "post /v1/sessions",
    "put /v1/shipments/{}/status",
];

fn without_names(path: &str) -> String {
    let segments = path.split('/').map(|s| if s.starts_with('{') { "{}" } else { s });
    segments.collect::<Vec<_>>().join("/")
}

#[test]
fn the_demo_services_contract_is_inferred() -> Result<()> {
    let dir = stage::directory("contract")?;
    let mut sandbox = stage::sandbox(&dir)?;
    let mut service = sandbox.command(sandbox::binaries()?.join("demo-service"));
    service.arg(format!("0.0.0.0:{PORT}"));
    sandbox.serve("service", service, PORT)?;
    let options = AgentOptions::ebpf(&dir.join("agent")).watch_cgroup("shop", sandbox.cgroup());
    let agent = Agent::start(&options)?;
    let address = sandbox.socket(PORT, false);
    let sent = shopper::shop(address, 140, Duration::from_secs(3), |_, _| true)?;
    let summary = agent.stop()?;
    ensure!(summary.exchanges == sent && summary.lost == 0, "{sent} sent: {}", summary.last_line);

    let file = dir.join("agent/output/shop.openapi.json");
    let contract: Value = serde_json::from_slice(&fs::read(file)?)?;
    let mut found = BTreeSet::new();
    for (path, item) in contract["paths"].as_object().into_iter().flatten() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_some() {
                found.insert(format!("{method} {}", without_names(path)));
            }
        }
    }
    let expected = OPERATIONS.map(str::to_owned).into();
    let missing: Vec<_> = BTreeSet::difference(&expected, &found).collect();
    let invented: Vec<_> = found.difference(&expected).collect();
    ensure!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:#?}, invented {invented:#?}"
    );
    let schemes = contract["components"]["securitySchemes"].to_string();
    ensure!(schemes.contains("\"bearer\""), "no bearer scheme: {schemes}");
    ensure!(schemes.to_lowercase().contains("x-api-key"), "no API key scheme: {schemes}");
    stage::assert_contracts_are_valid(&dir.join("agent/output"))
}
