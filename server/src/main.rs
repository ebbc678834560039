//! netmem-server: arguments → config → run.
//!
//! Owns: the process: its arguments, its signals, its exit status, its one line on standard output. Called by: the user. Must
//! not: serve anything itself.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use netmem_server::Server;
use netmem_server::config::{Arguments, Command, Config};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The status for arguments that cannot be meant, as clap's own.
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Check { directory }) = &arguments.command {
        return check(directory);
    }
    let config = match arguments.into_config() {
        Ok(config) => config,
        Err(line) => {
            eprintln!("netmem-server: {line}");
            return ExitCode::from(STATUS_USAGE);
        }
    };
    tracing_subscriber::fmt().with_max_level(config.log).with_writer(io::stderr).with_ansi(false).init();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("netmem-server: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with a store, a line each.
fn check(directory: &Path) -> ExitCode {
    let shown = directory.display();
    let found = match netmem_server::check::check(directory) {
        Ok(found) => found,
        Err(line) => {
            eprintln!("netmem-server: {line}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::stdout().lock();
    let mut said = found.wrong.iter().try_for_each(|line| writeln!(out, "{line}"));
    if found.wrong.is_empty() {
        said = writeln!(
            out,
            "{shown}: {} regions, {} pages, all as they were written",
            found.regions, found.pages
        );
    } else {
        eprintln!(
            "netmem-server: {shown}: {} things are wrong; restore the regions named from a copy",
            found.wrong.len()
        );
    }
    if said.is_ok() && found.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(config: &Config) -> Result<(), String> {
    // Before the ready line: whoever reads it may send a signal at once.
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("cannot handle signals: {error}"))?;
    let server = Server::start(config).map_err(|error| error.to_string())?;
    let mut out = io::stdout().lock();
    writeln!(out, "netmem-server ready on {}", server.urls().join(" "))
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot say that it is ready: {error}"))?;
    drop(out);
    let signal = signals.forever().next().unwrap_or(SIGTERM);
    tracing::info!(signal, "shutting down");
    if !server.stop() {
        tracing::warn!("some connections were cut off");
    }
    Ok(())
}
