//! The same policies, by regorus within our engine and by a real OPA, on the same inputs.
//!
//! `TEST_OPA` names the OPA; `cargo xtask test` builds it and sets it.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use proptest::{
    prelude::{Just, Strategy, any, prop, prop_oneof},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use stoa_policy::rego::{Rego, RegoConfig};

const INPUTS: usize = 2000;

/// What OPA answers for each input: `[value]`, or `[]` where it is undefined.
fn ask_opa(
    files: &[(&str, &str)],
    data: &Value,
    rule: &str,
    inputs: &[Value],
) -> Result<Vec<Value>> {
    let program = env::var_os("TEST_OPA")
        .context("TEST_OPA is not set: run `cargo xtask test`, which builds OPA, or set it")?;
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text);
    for (name, text) in files {
        write(name, text)?;
    }
    write("data.json", &data.to_string())?;
    write("input.json", &json!(inputs).to_string())?;
    write(
        "batch.rego",
        &format!(
            "package batch\nresults := [r | some one in input; r := [v | v := {rule} with input as one]]"
        ),
    )?;
    let mut command = Command::new(program);
    command.args(["eval", "--format", "json", "--input"]).arg(dir.path().join("input.json"));
    for (name, _) in files.iter().copied().chain([("batch.rego", ""), ("data.json", "")]) {
        command.arg("--data").arg(dir.path().join(name));
    }
    let output = command.arg("data.batch.results").output()?;
    ensure!(output.status.success(), "opa: {}", String::from_utf8_lossy(&output.stdout));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let results = answer.pointer("/result/0/expressions/0/value").and_then(Value::as_array);
    Ok(results.context("opa answers nothing")?.clone())
}

fn compare(name: &str, text: &str, data: Value, inputs: &[Value]) -> Result<Rego> {
    let rule = if text.contains("package stoa.authz") {
        "data.stoa.authz.allow"
    } else {
        "data.test.result"
    };
    let config = RegoConfig {
        policy: Some(text.to_owned()),
        data: data.as_object().cloned().unwrap_or_default(),
        query: rule.to_owned(),
        // A debug build on a busy machine.
        timeout: serde_json::from_value(json!("60s"))?,
        max_instructions: 10_000_000,
        ..RegoConfig::default()
    };
    let ours = Rego::build(&config, None, None)
        .map_err(|refusal| anyhow::anyhow!("{name}: {}: {}", refusal.key, refusal.reason))?;
    let theirs = ask_opa(&[(name, text)], &data, rule, inputs)?;
    ensure!(theirs.len() == inputs.len());
    let defined = theirs.iter().filter(|value| **value != json!([])).count();
    ensure!(defined * 2 > inputs.len(), "{name} is defined for {defined} inputs only");
    let mut differences = Vec::new();
    for (input, expected) in inputs.iter().zip(&theirs) {
        let got = ours.evaluate_json(input).map_err(|error| error.context(name.to_owned()));
        let got = match got {
            Ok(value) => json!(value.into_iter().collect::<Vec<_>>()),
            Err(error) => json!({"error": error.to_string()}),
        };
        if !is_same(&got, expected) {
            differences
                .push(difference(&got, expected, String::new()) + &format!("\n  for {input}"));
        }
    }
    ensure!(
        differences.is_empty(),
        "{name}: {} of {} differ; the first ones:\n{}",
        differences.len(),
        inputs.len(),
        differences[..differences.len().min(8)].join("\n")
    );
    println!("{name}: {} inputs, equal answers, {defined} defined", inputs.len());
    Ok(ours)
}

/// Sets are printed as arrays, in an order of their own; numbers may be printed as 2 or 2.0.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

/// Where the two part.
fn difference(a: &Value, b: &Value, at: String) -> String {
    match (a, b) {
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let found = x.iter().zip(y).enumerate().find(|(_, (x, y))| !is_same(x, y));
            found.map_or(at.clone(), |(i, (x, y))| difference(x, y, format!("{at}/{i}")))
        }
        (Value::Object(x), Value::Object(y)) if x.len() == y.len() => {
            let null = Value::Null;
            let mut pairs = x.iter().map(|(k, x)| (k, x, y.get(k).unwrap_or(&null)));
            let found = pairs.find(|(_, x, y)| !is_same(x, y));
            found.map_or(at.clone(), |(k, x, y)| difference(x, y, format!("{at}/{k}")))
        }
        _ => format!("{at}: regorus {a}, OPA {b}"),
    }
}

fn inputs(strategy: impl Strategy<Value = Value>, count: usize) -> Result<Vec<Value>> {
    // Deterministic: what failed once fails again.
    let mut runner = TestRunner::deterministic();
    let one = |_| Ok(strategy.new_tree(&mut runner).map_err(|e| anyhow::anyhow!("{e}"))?.current());
    (0..count).map(one).collect()
}

fn request() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        "[a-z]{1,6}",
        Just("Ada".to_owned()),
        Just(" bob ".to_owned()),
        Just("é€𝄞".to_owned())
    ];
    let scope = prop::sample::select(vec![
        "stoa:read",
        "stoa:write",
        "stoa:admin",
        "stoa:execute",
        "stoa:deploy",
        "stoa:audit",
        "other",
        "",
    ]);
    let role = prop::sample::select(vec!["admin", "viewer", "devops", "tenant-admin", "cpi-admin"]);
    let action = prop::sample::select(vec![
        "Read",
        "List",
        "Create",
        "Delete",
        "PublishApi",
        "ViewAudit",
        "ViewLogs",
        "Subscribe",
        "Other",
    ]);
    let path = prop::sample::select(vec![
        "/",
        "/orders",
        "/orders/7",
        "/orders/7/items/8",
        "/admin",
        "/admin/x",
        "/administrator",
        "",
        "orders",
    ]);
    let ip = prop::sample::select(vec!["10.1.2.3", "192.0.2.7", "2001:db8::1", "11.0.0.1"]);
    (
        word.clone(),
        prop::collection::vec(scope, 0..4),
        prop::collection::vec(role, 0..3),
        action,
        path,
        ip,
        -100i64..100,
        -1000i32..1000,
        word,
        any::<bool>(),
    )
        .prop_map(|(user, scopes, roles, action, path, ip, number, ratio, sub, is_same)| {
            let sub = if is_same { user.clone() } else { sub };
            json!({
                "user": user, "user_id": user, "scopes": scopes, "roles": roles, "action": action,
                "path": path, "ip": ip, "number": number, "ratio": f64::from(ratio) / 16.0,
                "token": {"sub": sub, "n": number},
            })
        })
}

fn policy(name: &str) -> Result<String> {
    Ok(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name))?)
}

#[test]
fn access_policies_agree() -> Result<()> {
    let grants = json!({"grants": [
        {"role": "viewer", "actions": ["Read", "List"], "path": "/orders/*"},
        {"role": "devops", "actions": ["PublishApi", "ViewLogs"], "path": "/**"},
        {"role": "admin", "actions": ["Read", "Delete", "Create"], "path": "/*"},
    ]});
    compare("access.rego", &policy("access.rego")?, grants, &inputs(request(), INPUTS)?)?;
    Ok(())
}

#[test]
fn builtins_agree() -> Result<()> {
    compare("builtins.rego", &policy("builtins.rego")?, json!({}), &inputs(request(), INPUTS)?)?;
    Ok(())
}

#[test]
fn rules_and_mocks_agree_in_the_interpreter() -> Result<()> {
    let text = policy("rules.rego")?;
    let inputs = inputs(request(), INPUTS)?;
    let rego = compare("rules.rego", &text, json!({}), &inputs)?;
    ensure!(!rego.is_for_machine(), "this compared something else");
    Ok(())
}

#[test]
fn the_default_policy_agrees() -> Result<()> {
    compare(
        "default.rego",
        stoa_policy::rego::DEFAULT_POLICY,
        json!({}),
        &inputs(request(), INPUTS)?,
    )?;
    Ok(())
}

struct Signer {
    algorithm: Algorithm,
    key: SigningKey,
    kid: Option<&'static str>,
}

enum SigningKey {
    Jwt(EncodingKey),
    /// rcgen writes a form of PKCS #8 that jsonwebtoken does not read.
    Ed25519(rcgen::KeyPair),
}

impl SigningKey {
    fn sign(&self, header: &Header, claims: &Value) -> String {
        match self {
            Self::Jwt(key) => jsonwebtoken::encode(header, claims, key).unwrap_or_default(),
            Self::Ed25519(pair) => {
                let part = |value: String| URL_SAFE_NO_PAD.encode(value);
                let header = serde_json::to_string(header).unwrap_or_default();
                let signed = format!("{}.{}", part(header), part(claims.to_string()));
                let signature =
                    rcgen::SigningKey::sign(pair, signed.as_bytes()).unwrap_or_default();
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

fn signers() -> Result<(Vec<Signer>, Vec<String>)> {
    let (mut signers, mut keys, mut set) = (Vec::new(), Vec::new(), Vec::new());
    let kinds = [
        (&rcgen::PKCS_RSA_SHA256, vec![Algorithm::RS256, Algorithm::RS512, Algorithm::PS256], "r"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, vec![Algorithm::ES256], "p256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, vec![Algorithm::ES384], "p384"),
    ];
    for (kind, algorithms, kid) in kinds {
        let pair = rcgen::KeyPair::generate_for(kind)?;
        let certificate =
            rcgen::CertificateParams::new(vec!["issuer.example".into()])?.self_signed(&pair)?;
        keys.push(certificate.pem());
        keys.push(pair.public_key_pem());
        let pem = pair.serialize_pem();
        for algorithm in algorithms {
            let key = match kid {
                "r" => EncodingKey::from_rsa_pem(pem.as_bytes())?,
                _ => EncodingKey::from_ec_pem(pem.as_bytes())?,
            };
            if set.iter().all(|jwk: &Value| jwk["kid"] != *kid) {
                let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm)?)?;
                jwk["kid"] = json!(kid);
                set.push(jwk);
            }
            signers.push(Signer { algorithm, key: SigningKey::Jwt(key.clone()), kid: Some(kid) });
            signers.push(Signer { algorithm, key: SigningKey::Jwt(key), kid: None });
        }
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let certificate =
        rcgen::CertificateParams::new(vec!["issuer.example".into()])?.self_signed(&pair)?;
    keys.push(certificate.pem());
    keys.push(pair.public_key_pem());
    let point = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    set.push(json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": point}));
    let key = SigningKey::Ed25519(pair);
    signers.push(Signer { algorithm: Algorithm::EdDSA, key, kid: Some("ed") });
    for (secret, algorithm) in [("hush", Algorithm::HS256), ("hush", Algorithm::HS512)] {
        signers.push(Signer {
            algorithm,
            key: SigningKey::Jwt(EncodingKey::from_secret(secret.as_bytes())),
            kid: None,
        });
    }
    keys.push(json!({"keys": set}).to_string());
    keys.extend(
        ["no key", "{}", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
            .map(str::to_owned),
    );
    Ok((signers, keys))
}

#[test]
fn tokens_agree() -> Result<()> {
    let (signers, keys) = signers()?;
    let constraints = {
        let mut all = vec![
            json!({"secret": "hush"}),
            json!({"secret": "wrong"}),
            json!({"secret": ""}),
            json!({}),
            json!({"secret": "hush", "alg": "HS256"}),
            json!({"secret": "hush", "unknown": 1}),
            json!({"secret": "hush", "iss": "us", "aud": "shop", "time": 1_700_000_000_000_000_000u64}),
        ];
        for key in &keys {
            all.push(json!({"cert": key}));
            all.push(json!({"cert": key, "iss": "us", "time": 1_700_000_000_000_000_000u64}));
            all.push(json!({"cert": key, "aud": "shop", "alg": "ES256"}));
            all.push(json!({"cert": key, "secret": "hush"}));
        }
        all
    };
    let claims = prop::collection::btree_map(
        prop::sample::select(vec!["iss", "aud", "exp", "nbf", "sub", "x"]),
        prop_oneof![
            Just(json!("us")),
            Just(json!("shop")),
            Just(json!(["shop", "us"])),
            Just(json!([])),
            Just(json!(1_600_000_000)),
            Just(json!(1_800_000_000.5)),
            Just(json!(4_000_000_000u64)),
            Just(json!(null)),
        ],
        0..5,
    );
    let token = (0..signers.len(), claims, 0usize..12, any::<prop::sample::Index>());
    let sign = |(signer, mut claims, damage, place): (
        usize,
        std::collections::BTreeMap<&str, Value>,
        usize,
        prop::sample::Index,
    )| {
        // OPA panics on these: nothing to compare with.
        if claims.get("iss").is_some_and(|issuer| !issuer.is_string()) {
            claims.remove("iss");
        }
        let Signer { algorithm, key, kid } = &signers[signer];
        let mut header = Header::new(*algorithm);
        header.kid = kid.map(str::to_owned);
        if damage == 1 {
            header.kid = Some("another".into());
        }
        let mut token = key.sign(&header, &json!(claims));
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        match damage {
            2 => token.truncate(place.index(token.len() + 1)),
            3 => token = token.replacen('.', "", 1),
            4 => {
                let at = place.index(token.len());
                token.replace_range(at..=at, "A");
            }
            5 => token = format!("{}.{}.", part(json!({"alg": "none"})), part(json!(claims))),
            6 => {
                token = format!(
                    "{}.{}.c2ln",
                    part(json!({"alg": "HS256", "crit": ["b64"], "b64": true})),
                    part(json!(claims))
                )
            }
            7 => {
                token = format!(
                    "{}.{}.c2ln",
                    part(json!({"alg": "dir", "enc": "A128GCM"})),
                    part(json!(claims))
                )
            }
            8 => token = format!("{}.{}.c2ln", part(json!(["no", "object"])), part(json!("text"))),
            9 => {
                // A token within a token.
                header.cty = Some("JWT".into());
                let inner = part(json!({"alg": "HS256"}));
                token = format!(
                    "{}.{}.c2ln",
                    part(json!({"alg": "HS256", "cty": "JWT"})),
                    URL_SAFE_NO_PAD.encode(format!("{inner}.{}.c2ln", part(json!(claims))))
                );
            }
            _ => {}
        }
        json!({"token": token})
    };
    let inputs = inputs(token.prop_map(sign), 300)?;
    let data = json!({"keys": keys, "secrets": ["hush", "wrong", ""], "constraints": constraints});
    let rego = compare("tokens.rego", &policy("tokens.rego")?, data, &inputs)?;
    ensure!(!rego.is_for_machine(), "our builtins are for the interpreter");
    Ok(())
}
