//! A real Kafka: one broker that is its own controller, on a small heap.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::{Process, command};
use serde_json::Value;

use crate::{decisions::wait_for, proxy::write_certificates, servers::python};

/// A JVM that has the machine to itself needs 5 s.
const PATIENCE: Duration = Duration::from_secs(120);
pub const PARTITIONS: usize = 3;
/// Who may come in by SASL, with SCRAM-SHA-512 and with PLAIN.
pub const USER: &str = "stoa";
pub const PASSWORD: &str = "of-the-tests";

#[derive(Debug)]
pub struct Kafka {
    dir: PathBuf,
    pub address: SocketAddr,
    /// Over TLS with SASL; its authority is `ca.pem` of the directory.
    pub secure: SocketAddr,
    process: Option<Process>,
}

/// A record of a topic.
#[derive(Debug)]
pub struct Record {
    pub partition: u64,
    pub key: String,
    pub timestamp: u64,
    pub value: Value,
}

impl Kafka {
    /// `cargo xtask test` says where it is installed. Topics are made when they are asked for.
    pub fn start(dir: &Path) -> Result<Self> {
        write_certificates(dir)?;
        let (key, certificate) = (
            fs::read_to_string(dir.join("server.key"))?,
            fs::read_to_string(dir.join("server.pem"))?,
        );
        fs::write(dir.join("both.pem"), format!("{key}{certificate}"))?;
        let free =
            || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)));
        let (address, secure, controller) = (free()?, free()?, free()?);
        let place = dir.display();
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@{controller}\ncontroller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://{address},SASL_SSL://{secure},CONTROLLER://{controller}\n\
             advertised.listeners=PLAINTEXT://{address},SASL_SSL://{secure}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             ssl.keystore.type=PEM\nssl.keystore.location={place}/both.pem\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\";\n\
             log.dirs={place}/data\nnum.partitions={PARTITIONS}\n\
             offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
             log.initial.task.delay.ms=1000\n"
        );
        fs::write(dir.join("server.properties"), properties)?;
        let mut format = java()?;
        format.args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"]);
        format.arg(dir.join("server.properties")).arg("--add-scram");
        format.arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
        command::run(&mut format).context("Kafka's storage cannot be made")?;
        let mut kafka = Self { dir: dir.to_owned(), address, secure, process: None };
        kafka.start_again()?;
        Ok(kafka)
    }

    pub fn start_again(&mut self) -> Result<()> {
        let mut server = java()?;
        server.arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        let mut process = Process::start("kafka", server, &self.dir.join("logs"))?;
        let address = self.address;
        wait_for(&mut process, PATIENCE, &mut || std::net::TcpStream::connect(address).is_ok())?;
        self.process = Some(process);
        Ok(())
    }

    /// As `kill -9` and a crash end it.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { bail!("Kafka does not run") };
        process.signal("KILL")?;
        process.wait(Duration::from_secs(20))?;
        Ok(())
    }

    /// It takes what is sent to it and answers nothing, until it goes on.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("Kafka does not run")?.signal("STOP")
    }

    pub fn go_on(&self) -> Result<()> {
        self.process.as_ref().context("Kafka does not run")?.signal("CONT")
    }

    /// All that is in it, read by Python's client.
    pub fn read(&self, topic: &str) -> Result<Vec<Record>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("read_topic.py");
        let mut reader = Command::new(python());
        reader.arg(script).arg(self.address.to_string()).arg(topic);
        let lines = command::run(&mut reader).with_context(|| format!("reading {topic}"))?;
        let records = lines.lines().map(|line| {
            let read: Value = serde_json::from_str(line)?;
            let number = |name: &str| read[name].as_u64().context("no number");
            Ok(Record {
                partition: number("partition")?,
                key: read["key"].as_str().context("no key")?.to_owned(),
                timestamp: number("timestamp")?,
                value: read["value"].clone(),
            })
        });
        records.collect()
    }

    /// The number of the codec of a topic's first batch, as it is stored (3: LZ4).
    pub fn codec(&self, topic: &str) -> Result<u8> {
        for partition in 0..PARTITIONS {
            let dir = self.dir.join(format!("data/{topic}-{partition}"));
            let stored = fs::read(dir.join("00000000000000000000.log"))?;
            // Its attributes are bytes 21 and 22, the codec their last three bits.
            if let Some(attributes) = stored.get(22) {
                return Ok(attributes & 7);
            }
        }
        bail!("{topic} is empty")
    }
}

fn java() -> Result<Command> {
    let jars = std::env::var_os("TEST_KAFKA")
        .context("TEST_KAFKA is not set: run this with `cargo xtask test`")?;
    let jars = Path::new(&jars).join("*");
    ensure!(jars.parent().is_some_and(Path::is_dir), "no jars in {}", jars.display());
    let mut java = Command::new("java");
    java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars);
    Ok(java)
}
