//! A kernel of a Debian package: fetched by apt once, of which is kept what a guest boots with.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::command;

use crate::workspace::target;

/// Which release of Debian has which kernel, for machines of another one.
const RELEASES: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie")];

/// What the guest needs before it has a root, the disk that is none and its transport, and what the
/// tests make networks of.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "veth"];

pub struct Kernel {
    folder: PathBuf,
    /// As `uname -r` says it.
    pub release: String,
}

impl Kernel {
    /// `version` is such as `6.1`; the newest package of it is taken the first time.
    pub fn fetch(version: &str) -> Result<Self> {
        let is_version = version.split('.').count() == 2
            && version.split('.').all(|n| n.parse::<u8>().is_ok() && !n.starts_with('+'));
        ensure!(is_version, "`{version}` is not a kernel version; write 6.1 or 6.12");
        let kernels = target().join("kernels");
        let folder = kernels.join(version);
        if !folder.exists() {
            // Into a place of its own first, so that what was broken off is not taken for whole.
            let unpacked = kernels.join(format!("{version}.unpacked"));
            let kept = kernels.join(format!("{version}.kept"));
            for place in [&unpacked, &kept] {
                if place.exists() {
                    fs::remove_dir_all(place)?;
                }
                fs::create_dir_all(place)?;
            }
            download(version, &kernels, &unpacked)?;
            keep(&unpacked, &kept)?;
            fs::remove_dir_all(unpacked)?;
            fs::rename(kept, &folder)?;
        }
        let release = fs::read_to_string(folder.join("release"))?;
        Ok(Self { folder, release })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn program(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Files of modules, in an order in which they can be loaded.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(self.folder.join("modules"))?;
        let mut files: Vec<_> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
        files.sort();
        Ok(files)
    }
}

/// Unpacks the newest package of that version.
fn download(version: &str, kernels: &Path, to: &Path) -> Result<()> {
    let (apt, package) = find(version, kernels)?;
    println!("fetching {package} of Debian: the kernel to test on");
    command::run(apt.get(&["download", "-qq", &package]).current_dir(to))?;
    let archive = fs::read_dir(to)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get has downloaded nothing")?;
    command::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(to))?;
    Ok(())
}

/// By the machine's own sources, else by the mirror of Debian that they name.
fn find(version: &str, kernels: &Path) -> Result<(Apt, String)> {
    let own = Apt::default();
    if own.kernels("")?.is_empty() && sandbox::is_root() {
        command::run(&mut own.get(&["update", "-qq"]))?;
    }
    if let Some(package) = own.kernels(version)?.pop() {
        return Ok((own, package));
    }
    let release = RELEASES.iter().find(|(kernel, _)| *kernel == version).map(|(_, name)| *name);
    let Some(release) = release else {
        let known = RELEASES.map(|(kernel, _)| kernel).join(", ");
        bail!("apt knows no package linux-image-{version}*-amd64; Debian has kernels {known}");
    };
    let Some(mirror) = own.mirror()? else {
        bail!(
            "apt knows no package linux-image-{version}*-amd64, nor a mirror of Debian to ask for \
             it: add Debian's {release} to its sources and run this again"
        );
    };
    println!("asking the mirror of Debian for {release}, which has Linux {version}");
    let other = Apt::of(&mirror, release, &kernels.join("apt"))?;
    command::run(&mut other.get(&["update", "-qq"]))
        .with_context(|| format!("the mirror of Debian does not have {release}"))?;
    let package = other.kernels(version)?.pop();
    let package = package.with_context(|| format!("{release} has no Linux {version} any more"))?;
    Ok((other, package))
}

/// apt, with the machine's own sources or with others.
#[derive(Default)]
struct Apt(Vec<String>);

impl Apt {
    fn of(mirror: &str, release: &str, place: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(place.join(folder))?;
        }
        let sources = place.join("sources.list");
        fs::write(&sources, format!("deb {mirror} {release} main\n"))?;
        let place = place.display();
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={place}/lists"),
            format!("Dir::Cache={place}/cache"),
            // Its own user may not see this tree.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self(options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()))
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.0).args(words);
        command
    }

    fn get(&self, words: &[&str]) -> Command {
        self.command("apt-get", words)
    }

    /// Packages of kernels of that version, the newest last.
    fn kernels(&self, version: &str) -> Result<Vec<String>> {
        let words = ["search", "--names-only", "^linux-image-[0-9].*-amd64$"];
        let said = command::run(&mut self.command("apt-cache", &words))
            .context("the kernel is a package of Debian, which needs apt")?;
        Ok(sorted(version, said.lines().filter_map(|line| line.split(' ').next())))
    }

    /// Of Debian itself, as sources of another release name it too.
    fn mirror(&self) -> Result<Option<String>> {
        let words = ["indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(SUITE) $(CODENAME)"];
        let said = command::run(&mut self.get(&words))?;
        Ok(mirror_in(&said))
    }
}

fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (origin, address) = (words.next()?, words.next()?);
        // Not the archives of updates, whose names have a hyphen.
        (origin == "Debian" && !words.any(|name| name.contains('-'))).then(|| address.to_owned())
    })
}

/// Those of that version, and of no variant of the kernel.
fn sorted<'a>(version: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let release = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
            let rest = release.strip_prefix(version)?;
            let is_of_version = version.is_empty() || rest.starts_with(['.', '-']);
            let is_plain = !["cloud", "rt", "dbg"].iter().any(|variant| rest.contains(variant));
            (is_of_version && is_plain).then(|| (numbers(release), name.to_owned()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// The kernel, its release, and the modules that are needed, numbered in the order of loading. What
/// is built into the kernel is not among them.
fn keep(unpacked: &Path, to: &Path) -> Result<()> {
    let mut releases = fs::read_dir(unpacked.join("lib/modules"))?;
    let release = releases.next().context("the package has no modules")??.file_name();
    let release = release.to_string_lossy().into_owned();
    command::run(Command::new("depmod").arg("-b").arg(unpacked).arg(&release))?;
    let place = unpacked.join("lib/modules").join(&release);
    let dependencies = fs::read_to_string(place.join("modules.dep"))?;
    fs::create_dir(to.join("modules"))?;
    for (n, file) in loading_order(&dependencies).into_iter().enumerate() {
        let path = place.join(file);
        let bytes = match path.extension().is_some_and(|extension| extension == "xz") {
            true => uncompressed(&path)?,
            false => fs::read(&path)?,
        };
        fs::write(to.join(format!("modules/{n:02}-{}.ko", name_of(file))), bytes)?;
    }
    let program = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    fs::copy(&program, to.join("vmlinuz"))
        .with_context(|| format!("the package has no {}", program.display()))?;
    fs::write(to.join("release"), release)?;
    Ok(())
}

/// [`MODULES`] and what they need. Lines are such as `kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko ...`,
/// and what comes last is needed first (modules.dep(5)).
fn loading_order(dependencies: &str) -> Vec<&str> {
    let needs: BTreeMap<&str, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needed)| (name_of(file), (file, needed.split_whitespace().collect())))
        .collect();
    let mut files: Vec<&str> = Vec::new();
    for name in MODULES {
        let Some((file, needed)) = needs.get(name) else { continue };
        for file in needed.iter().rev().chain([file]) {
            if !files.contains(file) {
                files.push(file);
            }
        }
    }
    files
}

fn name_of(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(name, _)| name)
}

fn uncompressed(file: &Path) -> Result<Vec<u8>> {
    let output = command::output(Command::new("xz").arg("-dc").arg(file))?;
    ensure!(output.status.success(), "{} cannot be uncompressed", file.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_the_last() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.12-amd64",
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
        ];
        let newest = |version| sorted(version, names.into_iter()).pop();
        assert_eq!(newest("6.1").unwrap(), "linux-image-6.1.0-56-amd64");
        assert_eq!(newest("6.12").unwrap(), "linux-image-6.12.117+deb12-amd64");
        assert_eq!(newest("5.10"), None);
    }

    #[test]
    fn the_mirror_is_debians_own() {
        let targets = "Docker https://a.example/ bookworm bookworm\n\
                       Debian https://b.example/s/ oldstable-security bookworm-security\n\
                       Debian https://b.example/d/ oldstable bookworm\n";
        assert_eq!(mirror_in(targets).unwrap(), "https://b.example/d/");
        assert_eq!(mirror_in("Ubuntu https://c.example/ noble noble\n"), None);
    }

    #[test]
    fn modules_come_behind_what_they_need() {
        let dependencies = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs.ko.xz\n\
                            kernel/net/9p/9pnet.ko.xz:\n\
                            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
                            kernel/fs/netfs.ko.xz:\n\
                            kernel/drivers/net/tun.ko.xz:\n";
        let order: Vec<_> = loading_order(dependencies).into_iter().map(name_of).collect();
        assert_eq!(order, ["9pnet", "9pnet_virtio", "netfs", "9p"]);
    }
}
