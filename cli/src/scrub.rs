//! `netmem scrub`: whether all that a server has on its disk is as it was written.
//!
//! Owns: the command and what it prints. Called by: `main.rs`. Must not: read pages itself.

use std::io::{self, Write};

use clap::Args;
use netmem_protocol::control::{Damage, ScrubAfter, Scrubbed, ServerStat};
use netmem_protocol::pages::PAGE_INDEX_END;
use netmem_protocol::{PAGE_SIZE, RegionId};

use crate::args::{ServerOptions, output_failed};
use crate::client::Client;
use crate::error::{ClientError, Failure, printable};
use crate::transfer::progress;

/// Damaged pages in one answer at the most.
const DAMAGED_MAX: usize = 1024;
/// How often a scrub may come by everything that there is before the server is taken to lead it round in circles: each region has at most all
/// pages that are stored, and others may come while it goes on.
const ROUNDS_MAX: u64 = 4;
/// And so many pages, where there is next to nothing.
const PAGES_LEAST: u64 = 4096;

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
        let stat = client.server_stat()?;
        let bar = progress(bytes_of(stat.stored_pages), self.quiet);
        let mut most = pages_most(&stat);
        let mut after = Some(ScrubAfter { region: RegionId(0), page: 0 });
        let (mut pages, mut damaged) = (0u64, 0);
        let mut out = io::stdout().lock();
        while let Some(from) = after {
            let part = client.scrub(&from)?;
            check(&from, &part).map_err(|lie| client.lie(lie.to_owned()))?;
            pages = pages.saturating_add(part.pages);
            if pages > most {
                most = enough_for(&mut client, pages)?;
            }
            damaged += part.damaged.len();
            for damage in &part.damaged {
                bar.suspend(|| writeln!(out, "{}", line(damage))).map_err(output_failed)?;
            }
            bar.set_position(bytes_of(pages));
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

fn bytes_of(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_SIZE as u64)
}

/// Pages that a scrub may come by.
fn pages_most(stat: &ServerStat) -> u64 {
    let all = stat.stored_pages.saturating_mul(stat.regions.saturating_add(1));
    all.saturating_mul(ROUNDS_MAX).max(PAGES_LEAST)
}

/// The same as of now, if it is enough for those that were read.
fn enough_for(client: &mut Client, pages: u64) -> Result<u64, ClientError> {
    let stat = client.server_stat()?;
    let most = pages_most(&stat);
    if pages > most {
        let stored = stat.stored_pages;
        return Err(
            client.lie(format!("has compared {pages} pages of the {stored} that it has, and goes on"))
        );
    }
    Ok(most)
}

/// Whether a scrub that went on at `from` can have done so: it gets on, and what it found lies on its way.
fn check(from: &ScrubAfter, part: &Scrubbed) -> Result<(), &'static str> {
    let place = |at: &ScrubAfter| (at.region, at.page);
    let end = part.next.as_ref().map_or((RegionId(u64::MAX), u64::MAX), place);
    if part.next.is_some_and(|next| part.pages == 0 || place(&next) <= place(from)) {
        return Err("does not get on with the scrub, so that not all pages were compared");
    }
    let mut least = place(from);
    let possible = part.damaged.iter().all(|damage| {
        let at = (damage.region, damage.page);
        let follows = at >= least && at < end && damage.page < PAGE_INDEX_END;
        least = (damage.region, damage.page.saturating_add(1));
        follows
    });
    let count = part.damaged.len();
    if !possible || count > DAMAGED_MAX || count as u64 > part.pages {
        return Err("names damaged pages that it cannot have come by");
    }
    Ok(())
}

fn line(damage: &Damage) -> String {
    let what = match damage.name.as_str() {
        "" => format!("region {} (no name)", damage.region),
        name => printable(name),
    };
    format!("{what}: page {}: {}", damage.page, printable(&damage.text))
}
