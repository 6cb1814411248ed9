//! Where the cgroup v2 tree is, and what is in it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use stoa_common::watch::LEVELS;

use super::error::EbpfError;

/// The cgroup v2 tree as this process sees it.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub mount: PathBuf,
}

/// One cgroup, at the time it was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cgroup {
    pub path: PathBuf,
    /// What `bpf_skb_ancestor_cgroup_id` answers: the inode number, on 64-bit machines.
    pub id: u64,
}

impl Tree {
    /// Finds the mount: hybrid hosts have it beside the v1 ones.
    pub(super) fn find() -> Result<Self, EbpfError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path)
            .map_err(|source| EbpfError::Read { path: path.to_owned(), source })?;
        parse_mountinfo(&text).map(|mount| Self { mount }).ok_or(EbpfError::NoCgroup2)
    }

    pub(super) fn root(&self) -> Result<Cgroup, EbpfError> {
        self.look_up(&self.mount)
    }

    /// A cgroup by its folder, or by its path from the root of the tree as `/proc/PID/cgroup` has
    /// it.
    pub(super) fn resolve(&self, named: &Path) -> Result<Cgroup, EbpfError> {
        let not_one =
            || EbpfError::NotACgroup { path: named.to_owned(), mount: self.mount.clone() };
        let candidate = match fs::canonicalize(named) {
            Ok(path) if path.starts_with(&self.mount) => path,
            _ => {
                let below: PathBuf =
                    named.components().filter(|c| matches!(c, Component::Normal(_))).collect();
                fs::canonicalize(self.mount.join(below)).map_err(|_| not_one())?
            }
        };
        if !candidate.starts_with(&self.mount) || !candidate.join("cgroup.procs").exists() {
            return Err(not_one());
        }
        let depth = candidate.strip_prefix(&self.mount).map_or(0, |rest| rest.components().count());
        if depth >= LEVELS as usize {
            return Err(EbpfError::TooDeep { path: candidate, levels: LEVELS });
        }
        self.look_up(&candidate)
    }

    fn look_up(&self, path: &Path) -> Result<Cgroup, EbpfError> {
        let meta = fs::metadata(path)
            .map_err(|source| EbpfError::Read { path: path.to_owned(), source })?;
        Ok(Cgroup { path: path.to_owned(), id: meta.ino() })
    }
}

/// Mount point of the first cgroup2 entry (proc(5), `/proc/PID/mountinfo`).
fn parse_mountinfo(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        if rest.split(' ').next()? != "cgroup2" {
            return None;
        }
        let point = mount.split(' ').nth(4)?;
        Some(PathBuf::from(unescape(point)))
    })
}

/// Mount points have space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = after.get(3..).unwrap_or("");
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The cgroups at which programs are attached: each watched one that has no watched ancestor, so
/// that no packet passes twice.
pub(super) fn topmost(mut cgroups: Vec<Cgroup>) -> Vec<Cgroup> {
    cgroups.sort();
    cgroups.dedup();
    let mut top: Vec<Cgroup> = Vec::new();
    for cgroup in cgroups {
        // Sorted, an ancestor comes before what is below it.
        if !top.iter().any(|t| cgroup.path.starts_with(&t.path)) {
            top.push(cgroup);
        }
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tree_of_a_hybrid_host() {
        let text = "25 1 0:22 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs ro\n\
                    30 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    31 25 0:28 / /mnt/my\\040tree rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_mountinfo(text), Some(PathBuf::from("/mnt/my tree")));
        assert_eq!(parse_mountinfo("25 1 0:22 / /x rw - tmpfs tmpfs ro\n"), None);
    }

    #[test]
    fn attaches_above_only() {
        let cgroup = |path: &str, id| Cgroup { path: path.into(), id };
        let (a, ab, ab2, c) =
            (cgroup("/g/a", 2), cgroup("/g/a/b", 3), cgroup("/g/ab", 4), cgroup("/g/c/d", 5));
        let top = topmost(vec![ab.clone(), c.clone(), a.clone(), ab2.clone(), a.clone()]);
        assert_eq!(top, [a, ab2, c]);
    }
}
