//! `stoactl infer`: the agent's own path (redact, record, infer, render) over a file.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use stoa_contract::{
    infer::{Contract, InferOptions, infer},
    knowledge::ServiceKnowledge,
    openapi,
    redact::{RedactConfig, Redactor},
    summary, uac,
};
use stoa_wire::{exchange::Exchange, segment::Loss};

use crate::{Error, Format, InferArguments, input};

/// Hashes made with it never leave this process, and a fixed one makes every run alike.
const SECRET: [u8; 16] = *b"of one run only.";

struct Service {
    redactor: Redactor,
    knowledge: ServiceKnowledge,
    exchanges: u64,
    /// Exchanges of which bytes are missing that no budget left out.
    lossy: u64,
}

impl Service {
    fn new() -> Self {
        Self {
            redactor: Redactor::new(SECRET, RedactConfig::default()),
            knowledge: ServiceKnowledge::default(),
            exchanges: 0,
            lossy: 0,
        }
    }

    fn record(&mut self, exchange: &Exchange) {
        self.exchanges += 1;
        self.lossy += u64::from(exchange.lost.iter().any(|(l, n)| *l != Loss::Budget && *n > 0));
        if let Some(observation) = self.redactor.observe(exchange) {
            self.knowledge.record(&observation);
        }
    }
}

pub fn run(arguments: &InferArguments, out: &mut impl Write) -> Result<(), Error> {
    if let Some(name) = arguments.service.as_deref().filter(|name| !input::is_service_name(name)) {
        return Err(Error::ServiceName(name.to_owned()));
    }
    let mut services: BTreeMap<u32, Service> = BTreeMap::new();
    let outline = input::read(&arguments.file, &mut |exchange| {
        services.entry(exchange.endpoints.service).or_insert_with(Service::new).record(&exchange);
    })?;
    if services.is_empty() {
        return Err(Error::NoExchange { path: arguments.file.clone(), why: outline.why_empty });
    }
    let name_of = |number: u32| {
        let name = usize::try_from(number).ok().and_then(|n| outline.names.get(n));
        name.cloned().unwrap_or_else(|| format!("service-{number}"))
    };
    let mut named: Vec<(String, Service)> =
        services.into_iter().map(|(number, service)| (name_of(number), service)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(wanted) = &arguments.service {
        named = select(named, wanted)?;
    }

    for (place, (name, service)) in named.iter().enumerate() {
        let options = InferOptions { service: name.clone(), ..InferOptions::default() };
        let contract = infer(&service.knowledge, &options);
        match (arguments.format, &arguments.output) {
            (Some(format), None) => {
                if place > 0 && format == Format::OpenapiYaml {
                    writeln!(out, "---")?;
                }
                write!(out, "{}", render(&contract, format, &arguments.tenant)?)?;
            }
            (format, output) => {
                let directory = output.clone().unwrap_or_else(|| PathBuf::from("contracts"));
                let formats = match format {
                    Some(format) => vec![format],
                    None => vec![Format::OpenapiYaml, Format::OpenapiJson, Format::Uac],
                };
                write_files(&directory, name, service, &contract, &formats, arguments, out)?;
            }
        }
    }
    Ok(())
}

/// The service of that name; or the only one, under that name.
fn select(
    mut named: Vec<(String, Service)>,
    wanted: &str,
) -> Result<Vec<(String, Service)>, Error> {
    if let Some(place) = named.iter().position(|(name, _)| name == wanted) {
        return Ok(vec![named.swap_remove(place)]);
    }
    if named.len() == 1 {
        return Ok(named.into_iter().map(|(_, only)| (wanted.to_owned(), only)).collect());
    }
    let there = named.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    Err(Error::NoService { name: wanted.to_owned(), there })
}

fn render(contract: &Contract, format: Format, tenant: &str) -> Result<String, Error> {
    Ok(match format {
        Format::OpenapiYaml => openapi::to_yaml(contract),
        Format::OpenapiJson => openapi::to_json(contract),
        Format::Summary => with_newline(summary::table(contract)),
        Format::Uac => {
            let options = uac::UacOptions { tenant: tenant.to_owned(), ..Default::default() };
            match uac::to_value(contract, &options) {
                Some(value) => format!("{value:#}\n"),
                None => String::new(),
            }
        }
    })
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn write_files(
    directory: &Path,
    name: &str,
    service: &Service,
    contract: &Contract,
    formats: &[Format],
    arguments: &InferArguments,
    out: &mut impl Write,
) -> Result<(), Error> {
    fs::create_dir_all(directory)
        .map_err(|source| Error::Write { path: directory.to_owned(), source })?;
    let mut first = None;
    let mut others = Vec::new();
    for format in formats {
        let suffix = match format {
            Format::OpenapiYaml => "openapi.yaml",
            Format::OpenapiJson => "openapi.json",
            Format::Uac => "uac.json",
            Format::Summary => "summary.txt",
        };
        let text = render(contract, *format, &arguments.tenant)?;
        if text.is_empty() {
            continue;
        }
        let path = directory.join(format!("{name}.{suffix}"));
        replace_file(&path, &text)?;
        match first {
            None => first = Some(path),
            Some(_) => others.push(path),
        }
    }
    writeln!(out, "{}", with_newline(summary::table(contract)))?;
    for path in others {
        writeln!(out, "also: {}", path.display())?;
    }
    let file = first.map_or("none".to_owned(), |path| path.display().to_string());
    writeln!(
        out,
        "contract: {file} ({} operations from {} exchanges, {} lost)",
        contract.operations.len(),
        service.exchanges,
        service.lossy
    )?;
    Ok(())
}

/// Under another name first, so that nobody reads half of it.
fn replace_file(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::Write { path: path.to_owned(), source }
    })
}
