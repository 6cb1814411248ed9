//! The table of settings: one line names a setting's flag, file key and variables, so that the
//! four ways to configure cannot drift apart.

mod agent;
mod kafka;
mod policies;
mod proxy;
mod shadow;
mod sidecar;
mod telemetry;

/// One setting. The flag is `--key`; the key in a file is the same with `_` for `-`.
pub struct Setting {
    pub key: &'static str,
    /// The variable, then older names of it, the preferred first.
    pub variables: &'static [&'static str],
    pub value_name: &'static str,
    pub group: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    One,
    /// Repeatable as a flag, a list in a file, comma-separated in a variable.
    Many,
    /// `--key` alone means yes.
    Switch,
}

const fn one(
    key: &'static str,
    variables: &'static [&'static str],
    value_name: &'static str,
    group: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, variables, value_name, group, help, kind: Kind::One }
}

/// All of them, in the order in which `--help` shows them.
pub fn all() -> impl Iterator<Item = &'static Setting> + Clone {
    [
        agent::SETTINGS,
        shadow::SETTINGS,
        proxy::SETTINGS,
        sidecar::SETTINGS,
        policies::SETTINGS,
        telemetry::SETTINGS,
        kafka::SETTINGS,
        agent::LAST,
    ]
    .into_iter()
    .flatten()
}
