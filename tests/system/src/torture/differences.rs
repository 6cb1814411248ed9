//! `tests/torture/DIFFERENCES.md`: every case in which Envoy or nginx does otherwise than proxy
//! mode, and why. The test holds it to be what was observed, no more and no less.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::corpus;

/// What the three made of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub case: String,
    pub ours: String,
    pub envoy: String,
    /// `None` where the nginx of this machine is not the one that the list was made with.
    pub nginx: Option<String>,
}

impl Observed {
    fn differs(&self) -> bool {
        self.ours != self.envoy || self.nginx.as_ref().is_some_and(|nginx| self.ours != *nginx)
    }

    /// The cells of its row. `listed` are those in the file, for what was not observed.
    fn cells(&self, listed: Option<&str>) -> String {
        let same = |other: &str| if other == self.ours { "same" } else { other }.to_owned();
        let nginx = match &self.nginx {
            Some(nginx) => same(nginx),
            None => listed.and_then(|cells| cells.split(" | ").nth(3)).unwrap_or("?").to_owned(),
        };
        format!("{} | {} | {} | {nginx}", self.case, self.ours, same(&self.envoy))
    }
}

/// Whether the list was made with the nginx that is installed here. Says so where it was not: its
/// column is then not compared.
pub fn knows_this_nginx() -> Result<bool> {
    let said = Command::new("nginx").arg("-v").output().context("there is no nginx here")?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let version = said.trim().rsplit('/').next().unwrap_or_default().to_owned();
    let version = version.split(' ').next().unwrap_or_default();
    let is_known = fs::read_to_string(path())?.contains(&format!("nginx {version} "));
    if !is_known {
        println!("DIFFERENCES.md was made with another nginx than {version}: not compared");
    }
    Ok(is_known)
}

fn path() -> PathBuf {
    corpus::directory().join("DIFFERENCES.md")
}

/// The rows of one section: by case, the row without its reason, and the reason.
fn listed(text: &str, section: &str) -> BTreeMap<String, (String, String)> {
    let title = format!("## {section}");
    text.lines()
        .skip_while(|line| *line != title)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
            let (observed, why) = cells.rsplit_once(" | ")?;
            let (case, _) = observed.split_once(" | ")?;
            (case != "case").then(|| (case.to_owned(), (observed.to_owned(), why.to_owned())))
        })
        .collect()
}

/// Fails with the rows that are to be added, changed or removed.
pub fn check(section: &str, observed: &[Observed]) -> Result<()> {
    let path = path();
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))?;
    let mut listed = listed(&text, section);
    let mut wrong = String::new();
    for case in observed {
        let found = listed.remove(&case.case);
        let cells = case.cells(found.as_ref().map(|(cells, _)| cells.as_str()));
        match found {
            Some(_) if case.nginx.is_some() && !case.differs() => {
                writeln!(wrong, "to be removed, all do the same: | {cells} |")?;
            }
            Some((known, why)) if known == cells && why.trim().len() >= 3 => {}
            // What only nginx does otherwise may be listed, and is not observed.
            None if !case.differs() => {}
            Some((known, _)) if known == cells => writeln!(wrong, "without a reason: | {cells} |")?,
            Some((_, why)) => writeln!(wrong, "to be changed: | {cells} | {why} |")?,
            None => writeln!(wrong, "to be added: | {cells} | |")?,
        }
    }
    for (cells, _) in listed.values() {
        writeln!(wrong, "to be removed, no such case: | {cells} |")?;
    }
    ensure!(wrong.is_empty(), "{} is not what was observed:\n{wrong}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_section() {
        let text = "# D\n\n## Requests\n\nabc\n\n| case | ours |\n|---|---|\n| a | 400 | same | 200 | it \
                    does |\n\n## Responses\n\n| b | 502 | 200 | same | x |\n";
        let rows = listed(text, "Requests");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows["a"], ("a | 400 | same | 200".to_owned(), "it does".to_owned()));
        let case = Observed {
            case: "a".to_owned(),
            ours: "400".to_owned(),
            envoy: "400".to_owned(),
            nginx: Some("200".to_owned()),
        };
        assert!(case.differs());
        assert_eq!(case.cells(None), "a | 400 | same | 200");
        let unknown = Observed { nginx: None, ..case };
        assert!(!unknown.differs());
        assert_eq!(unknown.cells(Some("a | 400 | same | 200")), "a | 400 | same | 200");
    }
}
