//! Where settings come from: flags, variables, file. Each layer is text with its origin; the
//! values are read once, after layering.

use std::{collections::BTreeMap, path::Path};

use super::{
    ConfigError, names,
    settings::{self, Kind},
};
use crate::catalog::document::SECTIONS;

/// A value as it was given, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub values: Vec<String>,
    /// As an operator would name it: `--port`, `STOA_PORT`, `port in config.yaml`.
    pub origin: String,
}

pub type Layer = BTreeMap<&'static str, Given>;

/// Reads the variables that are configuration. A name that is not known is an error where it is
/// meant for this program (`STOA_`), unless Kubernetes or Docker put it there for a service that
/// happens to be called `stoa-...`.
pub fn read_variables(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Layer, ConfigError> {
    let given: BTreeMap<String, String> = variables.into_iter().collect();
    let mut layer = Layer::new();
    for setting in settings::all() {
        for name in setting.variables {
            let Some(value) = given.get(*name) else { continue };
            if value.is_empty() || is_service_link(name, value) {
                continue;
            }
            let values = match setting.kind {
                Kind::Many => list_of(value),
                Kind::One | Kind::Switch => vec![value.clone()],
            };
            layer.insert(setting.key, Given { values, origin: (*name).to_owned() });
            break;
        }
    }
    for (name, value) in &given {
        let Some(rest) = name.strip_prefix("STOA_") else { continue };
        if names::by_variable(name).is_none()
            && !names::is_of_other_mode(rest)
            && !is_service_link(name, value)
        {
            return Err(ConfigError::UnknownVariable {
                name: name.clone(),
                hint: closest(name, settings::all().flat_map(|s| s.variables).copied()),
                valid: settings::all().filter_map(|s| s.variables.first()).copied().collect(),
            });
        }
    }
    Ok(layer)
}

/// Parted by commas, or a JSON list of texts, for those with a comma in them.
fn list_of(value: &str) -> Vec<String> {
    serde_json::from_str(value)
        .unwrap_or_else(|_| value.split(',').map(|v| v.trim().to_owned()).collect())
}

/// Those of `variables` that are known and do nothing in this build.
pub fn without_effect(variables: &[(String, String)]) -> Vec<String> {
    let names = variables.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    let is_idle = |name: &&String| name.strip_prefix("STOA_").is_some_and(names::is_of_other_mode);
    let mut idle: Vec<String> = names.filter(is_idle).cloned().collect();
    idle.sort_unstable();
    idle
}

/// Kubernetes gives every container variables for each service of its namespace
/// (`STOA_GATEWAY_PORT=tcp://10.0.0.7:8083`, `STOA_GATEWAY_SERVICE_HOST`,
/// `STOA_GATEWAY_PORT_8083_TCP_ADDR`); they are not configuration.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|s| value.starts_with(s));
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    if name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
    {
        return true;
    }
    // `_PORT_<number>_<protocol>` and its `_PROTO`, `_PORT`, `_ADDR`.
    name.match_indices("_PORT_").any(|(at, part)| {
        let mut rest = name.get(at + part.len()..).unwrap_or("").split('_');
        rest.next().is_some_and(|n| n.parse::<u16>().is_ok())
            && rest.next().is_some_and(|p| matches!(p, "TCP" | "UDP" | "SCTP"))
            && rest.next().is_none_or(|p| matches!(p, "PROTO" | "PORT" | "ADDR"))
    })
}

/// Reads a YAML file whose keys are those of the flags, with `_` for `-`.
pub fn read_file(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let file = path.display().to_string();
    let broken = |reason: String| ConfigError::BrokenFile { file: file.clone(), reason };
    if text.trim().is_empty() {
        return Ok(Layer::new());
    }
    let value: serde_json::Value =
        serde_norway::from_str(text).map_err(|e| broken(e.to_string()))?;
    let serde_json::Value::Object(entries) = value else {
        return match value {
            serde_json::Value::Null => Ok(Layer::new()),
            _ => Err(broken("its top level is not a mapping of keys to values".to_owned())),
        };
    };
    let mut layer = Layer::new();
    for (key, value) in entries.into_iter().flat_map(flatten) {
        let Some(setting) = names::by_key(&key).filter(|s| s.key != "config") else {
            let upper = key.to_uppercase().replace('-', "_");
            if SECTIONS.contains(&key.as_str())
                || names::is_of_other_mode(&upper)
                || names::is_section_of_other_mode(&upper)
            {
                continue;
            }
            let keys: Vec<String> = settings::all()
                .filter(|s| s.key != "config")
                .map(|s| s.key.replace('-', "_"))
                .collect();
            let hint = closest(&key, keys.iter().map(String::as_str));
            return Err(ConfigError::UnknownKey { key, file, hint, valid: keys.join(", ") });
        };
        let values =
            texts_of(setting.kind, value).map_err(|reason| broken(format!("`{key}` {reason}")))?;
        let origin = format!("`{key}` in {file}");
        if layer.insert(setting.key, Given { values, origin }).is_some() {
            return Err(broken(format!("`{}` is given twice, under two names", setting.key)));
        }
    }
    Ok(layer)
}

/// `mtls: {enabled: true}` is the setting `mtls__enabled`, as it is in a variable's name.
fn flatten((key, value): (String, serde_json::Value)) -> Vec<(String, serde_json::Value)> {
    let section = format!("{}--", key.replace('_', "-"));
    match value {
        serde_json::Value::Object(members)
            if settings::all().any(|setting| setting.key.starts_with(&section)) =>
        {
            members.into_iter().map(|(name, value)| (format!("{key}__{name}"), value)).collect()
        }
        value => vec![(key, value)],
    }
}

fn texts_of(kind: Kind, value: serde_json::Value) -> Result<Vec<String>, &'static str> {
    use serde_json::Value;
    let scalar = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Err("has no value"),
        Value::Array(_) | Value::Object(_) => Err("takes one value"),
    };
    match (kind, value) {
        (Kind::Many, Value::Array(items)) => items.into_iter().map(scalar).collect(),
        // `watch: {api: "port:8000"}`
        (Kind::Many, Value::Object(entries)) => {
            entries.into_iter().map(|(k, v)| Ok(format!("{k}={}", scalar(v)?))).collect()
        }
        (_, value) => Ok(vec![scalar(value)?]),
    }
}

/// The known name nearest to `given`, where it is near enough to be what was meant.
pub fn closest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|name| (edit_distance(given, name), name)).min();
    match best {
        Some((distance, name)) if distance <= given.len() / 4 + 1 => {
            format!(" Did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

/// Levenshtein distance, ignoring case.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Result<Layer, ConfigError> {
        read_variables(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn what_kubernetes_injects_is_not_configuration() {
        let layer = variables(&[
            ("STOA_GATEWAY_PORT", "tcp://10.96.0.7:8083"),
            ("STOA_PORT", "tcp://10.96.0.8:80"),
            ("STOA_GATEWAY_SERVICE_HOST", "10.96.0.7"),
            ("STOA_GATEWAY_SERVICE_PORT", "8083"),
            ("STOA_GATEWAY_SERVICE_PORT_HTTP", "8083"),
            ("STOA_GATEWAY_PORT_8083_TCP", "tcp://10.96.0.7:8083"),
            ("STOA_GATEWAY_PORT_8083_TCP_PROTO", "tcp"),
            ("STOA_GATEWAY_PORT_8083_TCP_PORT", "8083"),
            ("STOA_GATEWAY_PORT_8083_TCP_ADDR", "10.96.0.7"),
        ])
        .unwrap();
        assert_eq!(layer, Layer::new());
    }

    #[test]
    fn a_variable_that_only_looks_injected_is_still_unknown() {
        for name in ["STOA_PORT_X_TCP", "STOA_PORTS", "STOA_X_PORT_80_HTTP", "STOA_GATEWAY_PORT"] {
            let error = variables(&[(name, "1")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("STOA_CAPTURE_METHOD"), "{error}");
        }
    }

    #[test]
    fn newer_names_win_over_older_ones() {
        let layer =
            variables(&[("GATEWAY_MODE", "edge-mcp"), ("STOA_GATEWAY_MODE", "shadow")]).unwrap();
        assert_eq!(layer["mode"].values, ["shadow"]);
        let layer = variables(&[("GATEWAY_PORT", "1234")]).unwrap();
        assert_eq!(layer["port"].origin, "GATEWAY_PORT");
    }

    #[test]
    fn variables_of_other_modes_are_known() {
        let names = ["STOA_SSE_KEEPALIVE", "STOA_K8S_ENABLED", "STOA_AUTO_CREATE_MR"];
        for name in names {
            assert_eq!(variables(&[(name, "true")]).unwrap(), Layer::new(), "{name}");
        }
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_right_one() {
        let error = read_file(Path::new("c.yaml"), "retention_day: 3").unwrap_err().to_string();
        assert!(error.contains("Did you mean `retention_days`?"), "{error}");
        assert!(error.contains("min_requests_for_uac"), "{error}");
    }

    #[test]
    fn file_takes_lists_maps_and_sections_of_other_modes() {
        let text = "gateway_mode: shadow\nport: 9\nwatch:\n  api: port:80\nmtls: {enabled: true}\n";
        let layer = read_file(Path::new("c.yaml"), text).unwrap();
        assert_eq!(layer["watch"].values, ["api=port:80"]);
        assert_eq!(layer["mode"].values, ["shadow"]);
        let layer = read_file(Path::new("c.yaml"), "watch: [a=port:1, b=pid:2]").unwrap();
        assert_eq!(layer["watch"].values, ["a=port:1", "b=pid:2"]);
    }

    #[test]
    fn one_setting_under_two_names_is_refused() {
        let error = read_file(Path::new("c.yaml"), "mode: shadow\ngateway_mode: shadow");
        assert!(error.unwrap_err().to_string().contains("given twice"));
    }
}
