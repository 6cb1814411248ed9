//! The real servers that marked traffic goes to, each in a sandbox.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use sandbox::Sandbox;

use crate::markers::filler;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Nginx,
    Python,
    Node,
    /// Defers: its listener hands on a connection only with its first request.
    Apache,
}

/// The port that each of them listens on, in its own namespace.
pub const PORT: u16 = 8080;

/// Sizes of the static files that nginx serves as `/files/SIZE`.
pub const FILE_SIZES: [usize; 8] =
    [0, 1, 1023, 15_000, 16 * 1024 - 400, 40_000, 262_144, 1024 * 1024];

impl Server {
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Python, Self::Node, Self::Apache];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Python => "python",
            Self::Node => "node",
            Self::Apache => "apache",
        }
    }

    /// Starts it in `sandbox`; `dir` holds its files. Returns its process id.
    pub fn start(self, sandbox: &mut Sandbox, dir: &Path) -> Result<u32> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
        let command = match self {
            Self::Nginx => {
                let mut command = sandbox.command("nginx");
                command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(write_nginx(dir)?);
                command
            }
            Self::Python => {
                let mut command = sandbox.command(python());
                command.arg(scripts.join("echo.py")).arg(PORT.to_string());
                command
            }
            Self::Node => {
                let mut command = sandbox.command("node");
                command.arg(scripts.join("echo.js")).arg(PORT.to_string());
                command
            }
            Self::Apache => {
                let mut command = sandbox.command("apache2");
                command.args(["-D", "FOREGROUND", "-f"]).arg(write_apache(dir)?);
                command
            }
        };
        sandbox.serve(self.name(), command, PORT)
    }
}

/// The interpreter with the packages of `requirements.txt`; `cargo xtask test` prepares it.
pub fn python() -> PathBuf {
    std::env::var_os("TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// One worker, answers from memory: `/m/...` with its own target, `/files/SIZE` with a file.
pub fn write_nginx(dir: &Path) -> Result<PathBuf> {
    write_files(dir)?;
    let config = dir.join("nginx.conf");
    fs::write(
        &config,
        format!(
            r#"
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
user root;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 100000000;
    client_max_body_size 4m;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    open_file_cache max=100;
    gzip_types text/plain;
    gzip_min_length 1;
    server {{
        listen {PORT} backlog=4096;
        listen [::]:{PORT} backlog=4096;
        location /m/ {{ return 200 "$request_uri\n"; }}
        location /gzip/ {{ gzip on; return 200 "$request_uri\n"; }}
        location /bench {{ default_type application/json; return 200 '{bench}'; }}
        location /files/ {{ root {dir}; }}
    }}
}}
"#,
            dir = dir.display(),
            bench = bench_json(1024),
        ),
    )?;
    Ok(config)
}

/// Answers as nginx does. What is asked for is echoed by a server-side include.
fn write_apache(dir: &Path) -> Result<PathBuf> {
    write_files(dir)?;
    fs::write(dir.join("echo.shtml"), "<!--#echo encoding=\"none\" var=\"REQUEST_URI\" -->\n")?;
    let modules = ["mpm_event", "authz_core", "alias", "include", "filter", "deflate", "mime"];
    let modules = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let config = dir.join("apache.conf");
    fs::write(
        &config,
        format!(
            r#"
ServerRoot {dir}
ServerName localhost
DefaultRuntimeDir {dir}
PidFile {dir}/apache.pid
ErrorLog /dev/stderr
{modules}
# It refuses to serve as root.
User www-data
Group www-data
Listen {PORT}
# The default, said because the tests are about it: TCP_DEFER_ACCEPT.
AcceptFilter http data
MaxKeepAliveRequests 0
KeepAliveTimeout 60
# One process with threads to spare: with few left, or a process too many, it closes connections
# that are between two requests.
StartServers 1
ServerLimit 1
ThreadLimit 256
ThreadsPerChild 256
MaxRequestWorkers 256
MinSpareThreads 1
MaxSpareThreads 256
TypesConfig /dev/null
AddType text/plain .shtml
AddOutputFilter INCLUDES .shtml
AliasMatch ^/(m|gzip)/ {dir}/echo.shtml
Alias /files/ {dir}/files/
<Directory {dir}>
    Require all granted
    Options +Includes
</Directory>
<Location /gzip/>
    AddOutputFilterByType DEFLATE text/plain
</Location>
"#,
            dir = dir.display(),
            modules = modules.concat(),
        ),
    )?;
    Ok(config)
}

/// The static files, one for each size.
fn write_files(dir: &Path) -> Result<()> {
    let files = dir.join("files");
    fs::create_dir_all(&files)?;
    for size in FILE_SIZES {
        fs::write(files.join(size.to_string()), filler("file", size))?;
    }
    Ok(())
}

/// A JSON document of exactly `size` bytes, as an API might answer it.
pub fn bench_json(size: usize) -> String {
    let mut items = String::new();
    for n in 0.. {
        let item = format!(
            r#"{{"id":{},"sku":"item-{n}","quantity":{},"available":true,"price":{}.5}},"#,
            1000 + n,
            n % 7,
            n * 3
        );
        if items.len() + item.len() + 40 > size {
            break;
        }
        items.push_str(&item);
    }
    let mut json = format!(r#"{{"items":[{}],"note":""#, items.trim_end_matches(','));
    while json.len() < size - 2 {
        json.push('x');
    }
    json.push_str("\"}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_body_is_json_of_the_size_asked_for() {
        let json = bench_json(1024);
        assert_eq!(json.len(), 1024);
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }
}
