//! `netmem top`: what a server's regions and clients are doing, second by second.
//!
//! Owns: its options, and the plain forms: text and JSON. Called by: `main.rs`. Must not: draw; `live.rs` does.

mod interval;
mod live;
mod screen;
mod table;
mod view;

pub use screen::Screen;
pub use table::micros;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::activity::Snapshot;
use crate::args::{ServerOptions, output_failed, parse_seconds};
use crate::client::Client;
use crate::error::{ClientError, Failure};
use crate::link::ServerAddress;
use crate::top::interval::Interval;
use crate::top::table::{Sorting, Subject, Table, summary};

/// `netmem top`
#[derive(Args, Debug)]
pub struct Top {
    /// The server, tcp://host:port or unix:/path, instead of --server
    url: Option<ServerAddress>,
    /// Plain text, an interval after the other; so it is anyway where standard output is no terminal
    #[arg(short, long)]
    batch: bool,
    /// One JSON object an interval, one a line
    #[arg(long)]
    json: bool,
    /// Seconds between two looks at the server, 0.1 to 3600
    #[arg(short, long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
    /// End after so many intervals [default: go on]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    server: ServerOptions,
}

/// Rows are sorted by fetches at first.
const SORTING: Sorting = Sorting { column: 1, reversed: false };

/// Looks at a server again and again, over one connection as long as that lasts.
#[derive(Debug)]
struct Looker {
    options: ServerOptions,
    client: Option<Client>,
}

impl Looker {
    fn look(&mut self) -> Result<Snapshot, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.options.connect()?,
        };
        let snapshot = client.snapshot()?;
        self.client = Some(client);
        Ok(snapshot)
    }
}

impl Top {
    /// Shows what happens until somebody has seen enough.
    pub fn run(mut self) -> Result<u8, Failure> {
        if let Some(url) = self.url.take() {
            self.server.server = url;
        }
        if !self.batch && !self.json && io::stdout().is_terminal() {
            let looker = Looker { options: self.server.clone(), client: None };
            return live::run(looker, self.interval, self.count);
        }
        self.plain()
    }

    /// The first answer is what the first interval counts from.
    fn plain(&self) -> Result<u8, Failure> {
        let mut looker = Looker { options: self.server.clone(), client: None };
        let mut before = looker.look()?;
        let mut left = self.count;
        while left != Some(0) {
            thread::sleep(self.interval);
            let now = looker.look()?;
            if let Some(interval) = Interval::between(&before, &now) {
                self.print(&interval).map_err(output_failed)?;
                left = left.map(|left| left - 1);
            }
            before = now;
        }
        Ok(0)
    }

    fn print(&self, interval: &Interval) -> io::Result<()> {
        let server = self.server.server.to_string();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", interval.json(&server))?;
            return out.flush();
        }
        let [first, second] = summary(interval);
        writeln!(out, "{server}  {first}\n{second}")?;
        for subject in [Subject::Regions, Subject::Clients] {
            for line in Table::new(interval, subject, SORTING).lines() {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out)?;
        out.flush()
    }
}
