//! netmem-server: arguments → config → run.
//!
//! Owns: the process: its arguments, its signals, its exit status, its one line on standard output. Called by: the user. Must
//! not: serve anything itself.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use netmem_server::Server;
use netmem_server::config::{Arguments, Config};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The status for arguments that cannot be meant, as clap's own.
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match Arguments::parse().into_config() {
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
