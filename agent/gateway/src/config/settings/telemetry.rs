//! Settings of what the agent tells of the requests that it serves.

use super::{Kind, Setting, one};

const SNAPSHOTS: &str = "Error snapshots, of proxy and sidecar mode";

pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "snapshot-enabled",
        variables: &["STOA_SNAPSHOT_ENABLED"],
        value_name: "BOOL",
        group: SNAPSHOTS,
        help: "Keep what an exchange looked like that ended with a status of 500 or above, masked and in memory, for /admin/snapshots [default: false]",
        kind: Kind::Switch,
    },
    one(
        "snapshot-max-count",
        &["STOA_SNAPSHOT_MAX_COUNT"],
        "N",
        SNAPSHOTS,
        "Snapshots that are kept; the oldest goes first [default: 100]",
    ),
    one(
        "snapshot-max-age-secs",
        &["STOA_SNAPSHOT_MAX_AGE_SECS"],
        "SECONDS",
        SNAPSHOTS,
        "How long a snapshot is kept, less than 30 days [default: 3600]",
    ),
    one(
        "snapshot-body-max-bytes",
        &["STOA_SNAPSHOT_BODY_MAX_BYTES"],
        "BYTES",
        SNAPSHOTS,
        "How much of each body is looked at, at most 64KiB; 0 leaves bodies out [default: 4096]",
    ),
    Setting {
        key: "snapshot-extra-pii-patterns",
        variables: &["STOA_SNAPSHOT_EXTRA_PII_PATTERNS"],
        value_name: "REGEX",
        group: SNAPSHOTS,
        help: "What else to mask, beside personal data and credentials. Repeatable; in the variable a JSON list, where a pattern has a comma in it",
        kind: Kind::Many,
    },
];
