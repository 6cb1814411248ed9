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
