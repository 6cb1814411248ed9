//! Finds the calls of a policy to functions that there are none of.
//!
//! regorus finds an unknown function only when it comes to call it, and inside a function it makes
//! the result undefined: a rule that denies would then never deny. So every call is looked at
//! when the policy is loaded.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::builtins;

/// A call that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadCall {
    pub file: String,
    pub line: u64,
    pub name: String,
}

struct Module<'a> {
    ast: &'a Value,
    file: &'a str,
    /// `data.stoa.authz`
    package: String,
    /// Name in this file -> what it stands for.
    imports: HashMap<String, String>,
}

/// The first bad call of a policy, given regorus's syntax trees of its files and their texts.
pub(super) fn find_bad(trees: &Value, texts: &[&str]) -> Option<BadCall> {
    let trees = trees.as_array()?;
    let modules: Vec<Module<'_>> = trees
        .iter()
        .zip(texts)
        .filter_map(|(tree, text)| {
            let ast = tree.get("ast")?;
            Some(Module {
                ast,
                file: tree.pointer("/source/file").and_then(Value::as_str).unwrap_or("policy"),
                package: format!("data.{}", path_of(ast.pointer("/package/refr")?)?),
                imports: imports_of(ast, text),
            })
        })
        .collect();
    // A tree that is not understood is not let through.
    if modules.len() != trees.len() {
        let name = "a syntax tree that this build does not read".to_owned();
        return Some(BadCall { file: String::new(), line: 0, name });
    }
    let functions: HashSet<String> = modules.iter().flat_map(functions_of).collect();
    modules.iter().find_map(|module| module.find_bad(module.ast, &functions))
}

impl Module<'_> {
    fn find_bad(&self, tree: &Value, functions: &HashSet<String>) -> Option<BadCall> {
        match tree {
            Value::Array(items) => items.iter().find_map(|item| self.find_bad(item, functions)),
            Value::Object(fields) => {
                let called = fields.get("Call").and_then(|call| call.get("fcn"));
                // `with f as http.send` makes a call of what is named.
                let replacement = fields.get("refr").and_then(|_| fields.get("as"));
                let bad = called
                    .filter(|called| !self.is_known(called, functions))
                    .or_else(|| replacement.filter(|named| self.is_refused(named, functions)));
                if let Some(bad) = bad {
                    let name = path_of(bad).unwrap_or_else(|| "a computed function".to_owned());
                    let line = line_of(bad).unwrap_or(0);
                    return Some(BadCall { file: self.file.to_owned(), line, name });
                }
                fields.values().find_map(|field| self.find_bad(field, functions))
            }
            _ => None,
        }
    }

    fn is_known(&self, called: &Value, functions: &HashSet<String>) -> bool {
        path_of(called).is_some_and(|path| {
            let path = self.resolve(&path);
            functions.contains(&path)
                || functions.contains(&format!("{}.{path}", self.package))
                || builtins::is_available(&path)
        })
    }

    fn is_refused(&self, named: &Value, functions: &HashSet<String>) -> bool {
        path_of(named).is_some_and(|path| {
            let is_builtin = |space| path.starts_with(space);
            builtins::why_refused(&self.resolve(&path)).is_some()
                || ["io.", "crypto.", "net.", "http.", "providers.", "rego.", "graphql."]
                    .into_iter()
                    .any(is_builtin)
                    && !self.is_known(named, functions)
        })
    }

    fn resolve(&self, path: &str) -> String {
        let (first, rest) = path.split_at(path.find('.').unwrap_or(path.len()));
        match self.imports.get(first) {
            Some(target) => format!("{target}{rest}"),
            None => path.to_owned(),
        }
    }
}

fn functions_of(module: &Module<'_>) -> Vec<String> {
    let rules = module.ast.get("rules").and_then(Value::as_array).into_iter().flatten();
    let function = |rule: &Value| {
        let head = rule.pointer("/Spec/head/Func").or_else(|| {
            let default = rule.get("Default")?;
            (!default.get("args")?.as_array()?.is_empty()).then_some(default)
        });
        Some(format!("{}.{}", module.package, path_of(head?.get("refr")?)?))
    };
    rules.filter_map(function).collect()
}

fn imports_of(ast: &Value, text: &str) -> HashMap<String, String> {
    let imports = ast.get("imports").and_then(Value::as_array).into_iter().flatten();
    let import = |import: &Value| {
        let path = path_of(import.get("refr")?)?;
        let alias = import.get("as").and_then(|span| {
            let place = |name| usize::try_from(span.get(name)?.as_u64()?).ok();
            text.get(place("start")?..place("end")?)
        });
        let name = alias.unwrap_or_else(|| path.rsplit('.').next().unwrap_or(&path)).to_owned();
        path.starts_with("data.").then_some((name, path))
    };
    imports.filter_map(import).collect()
}

/// `data.lib.f` of a reference with constant parts.
fn path_of(expression: &Value) -> Option<String> {
    if let Some(name) = expression.pointer("/Var/value") {
        return name.as_str().map(str::to_owned);
    }
    if let Some(dotted) = expression.get("RefDot") {
        let field = dotted.pointer("/field/1")?.as_str()?;
        return Some(format!("{}.{field}", path_of(dotted.get("refr")?)?));
    }
    let bracketed = expression.get("RefBrack")?;
    let index = bracketed.pointer("/index/String/value")?.as_str()?;
    Some(format!("{}.{index}", path_of(bracketed.get("refr")?)?))
}

fn line_of(expression: &Value) -> Option<u64> {
    expression.as_object()?.values().next()?.pointer("/span/line")?.as_u64()
}
