//! The builtin functions that a policy may call.

use anyhow::{Result, bail};
use regorus::Value;

use super::jwt::{self, KnownKeys};

/// Those of regorus that answer as OPA does, always the same and within a bounded time.
pub(super) const OF_REGORUS: &[&str] = &[
    "abs",
    "array.concat",
    "array.reverse",
    "array.slice",
    "base64.decode",
    "base64.encode",
    "base64.is_valid",
    "base64url.decode",
    "base64url.encode",
    "base64url.encode_no_pad",
    "bits.and",
    "bits.lsh",
    "bits.negate",
    "bits.or",
    "bits.rsh",
    "bits.xor",
    "ceil",
    "concat",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "glob.match",
    "glob.quote_meta",
    "graph.reachable",
    "hex.decode",
    "hex.encode",
    "indexof",
    "indexof_n",
    "intersection",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "json.filter",
    "json.is_valid",
    "json.marshal",
    "json.marshal_with_options",
    "json.match_schema",
    "json.patch",
    "json.remove",
    "json.unmarshal",
    "json.verify_schema",
    "lower",
    "max",
    "min",
    "net.cidr_contains",
    "net.cidr_is_valid",
    "object.filter",
    "object.get",
    "object.keys",
    "object.remove",
    "object.subset",
    "object.union",
    "object.union_n",
    "print",
    "product",
    "regex.find_all_string_submatch_n",
    "regex.find_n",
    "regex.is_valid",
    "regex.match",
    "regex.replace",
    "regex.split",
    "regex.template_match",
    "replace",
    "round",
    "semver.compare",
    "semver.is_valid",
    "sort",
    "split",
    "sprintf",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.count",
    "strings.replace_n",
    "strings.reverse",
    "substring",
    "sum",
    "time.add_date",
    "time.clock",
    "time.date",
    "time.diff",
    "time.format",
    "time.now_ns",
    "time.parse_duration_ns",
    "time.parse_ns",
    "time.parse_rfc3339_ns",
    "time.weekday",
    "to_number",
    "trace",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "union",
    "units.parse",
    "units.parse_bytes",
    "upper",
    "urlquery.decode",
    "urlquery.decode_object",
    "urlquery.encode",
    "urlquery.encode_object",
    "uuid.parse",
    "walk",
    "yaml.is_valid",
    "yaml.marshal",
    "yaml.unmarshal",
];

/// Ours beside `io.jwt.*`: those of regorus whose work grows without bound.
const RANGES: [(&str, u8); 2] = [("numbers.range", 2), ("numbers.range_step", 3)];

pub(super) fn ours() -> impl Iterator<Item = (&'static str, u8)> {
    jwt::BUILTINS.into_iter().chain(RANGES)
}

/// Those that OPA has and that are refused for what they do, and why.
pub(super) fn why_refused(name: &str) -> Option<&'static str> {
    Some(match name {
        "http.send" | "net.lookup_ip_addr" => {
            "a decision does no network calls; hand the policy what it needs as data, or use a \
             real OPA (--opa-endpoint)"
        }
        "opa.runtime" => "a policy does not read the agent's environment",
        "rand.intn" | "uuid.rfc4122" => "a decision does not depend on chance",
        "graph.reachable_paths" | "net.cidr_expand" => {
            "its work grows without bound; use graph.reachable or net.cidr_contains"
        }
        _ => return None,
    })
}

pub(super) fn is_available(name: &str) -> bool {
    OF_REGORUS.contains(&name) || ours().any(|(ours, _)| ours == name)
}

/// What our builtins remember between calls. Each evaluator has its own.
#[derive(Clone, Default)]
pub(super) struct Host(KnownKeys);

impl Host {
    pub(super) fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value> {
        match (name, arguments) {
            ("numbers.range", [first, last]) => range(first, last, &Value::from(1_i64)),
            ("numbers.range_step", [first, last, step]) => range(first, last, step),
            _ => Ok(jwt::call(name, arguments, &mut self.0).unwrap_or(Value::Undefined)),
        }
    }
}

/// Numbers that one call may make.
const LONGEST_RANGE: i64 = 100_000;

fn range(first: &Value, last: &Value, step: &Value) -> Result<Value> {
    let (Ok(first), Ok(last), Ok(step)) = (first.as_i64(), last.as_i64(), step.as_i64()) else {
        return Ok(Value::Undefined);
    };
    if step < 1 {
        return Ok(Value::Undefined);
    }
    let length = i128::from(first).abs_diff(i128::from(last)) / step.unsigned_abs() as u128;
    if length >= LONGEST_RANGE as u128 {
        bail!(
            "numbers.range makes {length} numbers, and no call may make more than {LONGEST_RANGE}"
        );
    }
    let step = if first <= last { step } else { -step };
    Ok((0..=length as i64).map(|i| Value::from(first + i * step)).collect::<Vec<_>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_that_is_offered_is_there() {
        for name in OF_REGORUS.iter().filter(|name| **name != "print") {
            // With a wrong number of arguments: the complaint must be about that.
            let arguments = "1, 1, 1, 1, 1, 1, 1, 1, 1";
            let mut engine = regorus::Engine::new();
            engine
                .add_policy("a.rego".into(), format!("package a\nx := {name}({arguments})"))
                .unwrap();
            let error = engine.eval_rule("data.a.x".into()).unwrap_err().to_string();
            assert!(!error.contains("could not find function"), "{name}: {error}");
        }
    }

    #[test]
    fn ranges_go_both_ways_and_end() {
        let call = |name: &str, numbers: &[i64]| {
            let arguments: Vec<_> = numbers.iter().map(|number| Value::from(*number)).collect();
            Host::default().call(name, &arguments).map(|value| value.to_string())
        };
        assert_eq!(call("numbers.range", &[1, 3]).unwrap(), "[1,2,3]");
        assert_eq!(call("numbers.range", &[3, 1]).unwrap(), "[3,2,1]");
        assert_eq!(call("numbers.range_step", &[0, 7, 3]).unwrap(), "[0,3,6]");
        assert_eq!(call("numbers.range_step", &[7, 0, 3]).unwrap(), "[7,4,1]");
        assert!(call("numbers.range", &[0, 1_000_000_000]).is_err());
        assert!(call("numbers.range", &[i64::MIN, i64::MAX]).is_err());
    }
}
