//! `netmem scrub`: whether all that a server has on its disk is as it was written.
//!
//! Owns: the command and what it prints. Called by: `main.rs`. Must not: read pages itself.

use std::io::{self, Write};

use clap::Args;
use netmem_protocol::control::{Damage, ScrubAfter};
use netmem_protocol::{PAGE_SIZE, RegionId};

use crate::args::{ServerOptions, output_failed};
use crate::error::{Failure, printable};
use crate::transfer::progress;

/// `netmem scrub`
#[derive(Args, Debug)]
pub struct Scrub {
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerOptions,
}

impl Scrub {
    /// Runs it. Damage is a failure.
    pub fn run(&self) -> Result<u8, Failure> {
        let mut client = self.server.connect()?;
        let stored = client.server_stat()?.stored_pages;
        let bar = progress(stored * PAGE_SIZE as u64, self.quiet);
        let mut after = Some(ScrubAfter { region: RegionId(0), page: 0 });
        let (mut pages, mut damaged) = (0, 0);
        let mut out = io::stdout().lock();
        while let Some(from) = after {
            let part = client.scrub(&from)?;
            pages += part.pages;
            damaged += part.damaged.len();
            for damage in &part.damaged {
                bar.suspend(|| writeln!(out, "{}", line(damage))).map_err(output_failed)?;
            }
            bar.set_position(pages * PAGE_SIZE as u64);
            if part.next.is_some_and(|next| (next.region, next.page) <= (from.region, from.page)) {
                let why = "the scrub does not get on: the server names a place that was looked at before";
                return Err(Failure::new(
                    client.server(),
                    why,
                    "not all pages were compared; this is a bug in the server",
                ));
            }
            after = part.next;
        }
        bar.finish_and_clear();
        if damaged > 0 {
            let what = format!("{damaged} of {pages} pages are damaged");
            return Err(Failure::new(
                client.server(),
                what,
                "restore the regions named above from a copy; no other page is affected",
            ));
        }
        writeln!(out, "{pages} pages, all as they were written").map_err(output_failed)?;
        Ok(0)
    }
}

fn line(damage: &Damage) -> String {
    let what = match damage.name.as_str() {
        "" => format!("region {} (no name)", damage.region),
        name => printable(name),
    };
    format!("{what}: page {}: {}", damage.page, printable(&damage.text))
}
