//! What the agent says when it cannot start.

use std::{path::Path, process::Output};

use crate::agent::command;

fn run(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (Output, String) {
    let output = command()
        .current_dir(directory)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, error)
}

#[test]
fn wrong_configuration_is_answered_with_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stoa.yaml");
    std::fs::write(&file, "retention: 3\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, variables, parts) in [
        (vec!["--mode", "edge-mcp"], vec![], vec!["--mode:", "not in this build", "shadow"]),
        (vec!["--mode", "shadoww"], vec![], vec!["unknown mode `shadoww`"]),
        (vec![], vec![("STOA_GATEWAY_MODE", "mcp")], vec!["STOA_GATEWAY_MODE:", "shadow"]),
        (vec![], vec![("STOA_CAPTURE_METOD", "Ebpf")], vec!["Did you mean `STOA_CAPTURE_METHOD`?"]),
        (vec![], vec![("STOA_RETENTION_DAYS", "30")], vec!["STOA_RETENTION_DAYS:", "1 to 29"]),
        (vec!["--config", file], vec![], vec!["`retention`", "stoa.yaml", "retention_days"]),
        (vec!["--config", "gone.yaml"], vec![], vec!["gone.yaml", "--config"]),
        (vec!["--capture", "EnvoyTap"], vec![], vec!["EnvoyTap", "PortMirror"]),
        (vec!["--colour"], vec![], vec!["--colour"]),
        (vec![], vec![], vec!["nothing to watch", "--watch"]),
    ] {
        let (output, error) = run(dir.path(), &arguments, &variables);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {variables:?}: {error}");
        for part in parts {
            assert!(error.contains(part), "{arguments:?} {variables:?}: `{part}` not in {error}");
        }
        assert!(!error.contains("panicked"), "{error}");
    }
}

/// Each by the name that it was given under, with what would be right.
#[test]
fn wrong_settings_of_policies_are_answered_with_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = in_use.local_addr().unwrap().port().to_string();
    for (variable, value, parts) in [
        ("STOA_RATE_LIMIT_DEFAULT", "many", vec!["not a number"]),
        ("STOA_RATE_LIMIT_WINDOW_SECONDS", "0", vec!["from 1 to 86400"]),
        ("STOA_QUOTA_ENFORCEMENT_ENABLED", "perhaps", vec!["neither true nor false"]),
        ("STOA_QUOTA_DEFAULT_RATE_PER_MINUTE", "-1", vec!["not a number"]),
        ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "1e3", vec!["not a number"]),
        ("STOA_POLICY_ENABLED", "2", vec!["neither true nor false"]),
        ("OPA_ENABLED", "2", vec!["neither true nor false"]),
        ("STOA_POLICY_PATH", "gone.rego", vec!["policies.default.rego.files", "gone.rego"]),
        ("STOA_CB_FAILURE_THRESHOLD", "0", vec!["from 1 to"]),
        ("STOA_CB_RESET_TIMEOUT_SECS", "0", vec!["from 1 to"]),
        ("STOA_CB_SUCCESS_THRESHOLD", "x", vec!["from 1 to"]),
        ("STOA_OPA_ENDPOINT", "opa:8181", vec!["--opa-endpoint", "http://HOST:PORT"]),
        ("STOA_OPA_FAIL_MODE", "shut", vec!["open, closed"]),
        ("STOA_OPA_TIMEOUT_MS", "0", vec!["from 1 to"]),
        ("STOA_REDIS_URL", "http://x", vec!["--redis-url", "redis://HOST:PORT"]),
        ("STOA_REDIS_FAIL_MODE", "shut", vec!["open, closed"]),
        ("STOA_REDIS_TIMEOUT_MS", "1s", vec!["from 1 to"]),
        ("STOA_REQUEST_BODY_SECONDS", "0", vec!["from 1 to"]),
    ] {
        // Where the value is right, the port would be what is wrong.
        let arguments =
            ["--mode=proxy", "--upstream=http://127.0.0.1:1", "--host=127.0.0.1", "--port", &port];
        let (output, error) = run(dir.path(), &arguments, &[(variable, value)]);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{variable}: {error}");
        let named = error.contains(variable) || parts.len() > 1;
        assert!(named, "{variable} is not named in {error}");
        for part in parts {
            assert!(error.contains(part), "{variable}: `{part}` not in {error}");
        }
        assert!(!error.contains("panicked"), "{error}");
    }
    let both = [("STOA_POLICY_PATH", "a.rego"), ("STOA_OPA_ENDPOINT", "http://opa:8181")];
    let (output, error) = run(dir.path(), &["--mode=sidecar"], &both);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("exclude each other"), "{error}");
}

#[test]
fn a_file_in_the_working_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), "retention_days: 99\n").unwrap();
    let (output, error) = run(dir.path(), &["--target=http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("`retention_days` in config.yaml: 99 days is refused"), "{error}");
}

#[test]
fn help_and_version_are_no_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (output, _) = run(dir.path(), &["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("Ctrl-C") && help.contains("STOA_UAC_OUTPUT_DIR"), "{help}");
    let (output, _) = run(dir.path(), &["--version"], &[]);
    assert!(output.status.success());
}

#[test]
fn a_damaged_store_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    std::fs::write(dir.path().join("state/knowledge.redb"), b"this is not it").unwrap();
    let (output, error) =
        run(dir.path(), &["--state-dir=state", "--target=http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("damaged") && error.contains("mv state/knowledge.redb"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}
