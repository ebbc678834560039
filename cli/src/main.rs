//! The command `netmem`.
//!
//! Owns: the command line and the exit status. Called by: people. Must not: do any of the work.

#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use netmem_cli::error::Failure;
use netmem_cli::{bench, doctor, export, list, run, scrub, sites, snapshot, top, transfer};

const ABOUT: &str = "Memory that lives on another machine, for programs that were never told";

const LONG_ABOUT: &str = "\
Memory that lives on another machine, for programs that were never told.

A region is a named array of pages that netmem-server keeps. A program that is started with `netmem run` sees \
regions as files below /netmem/: it can map, read and write them, and its msync is one atomic commit on the server.";

const EXAMPLES: &str = "\
Examples:
  netmem doctor                                what this machine allows, and what would be better
  netmem import data.bin data                  a file becomes the region `data`, atomically
  netmem run --server tcp://host:7117 -- grep -c needle /netmem/data
  netmem ls -l
  netmem top                                   what the server's regions and clients are doing
  netmem bench tcp://host:7117                 what that server and this machine give, and which of them limits
  netmem export data copy.bin                  one epoch of a region becomes a file

Exit status: 0 done, 1 failed (one line on standard error says why), 2 wrong usage; `netmem run`: that of its command.";

#[derive(Parser)]
#[command(name = "netmem", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run a program with libnetmem.so in it
    ///
    /// The program sees regions as files below /netmem/. Where neither --server nor NETMEM_SERVER names a server, it
    /// gets a private one that ends with it, and its regions with that.
    #[command(
        override_usage = "netmem run [OPTIONS] -- <CMD>...",
        after_help = "\
Examples:
  netmem run -- ./program /netmem/data         with a private server, to try things
  netmem run --server tcp://host:7117 --cache-bytes 512M -- python3 train.py
  netmem run --engine sigsegv --log info -- ./program

Exit status: the command's; 128+N if signal N killed it; 127 if it is not found, 126 if it can't be executed."
    )]
    Run(Box<run::Run>),
    /// Say what this machine allows, which engine will be taken, and what would give a better one
    Doctor(doctor::Doctor),
    /// List regions and directories
    Ls(list::Ls),
    /// Describe a region, a directory, or the server
    Stat(list::Stat),
    /// Watch a server: its regions and clients, second by second
    ///
    /// Rates are what was served between two looks at the server; p50 and p99 are the server's own time for a request in between, from
    /// the read that brought its end until the kernel had the whole answer. Press h for the keys.
    Top(top::Top),
    /// Measure a server, the network to it and this machine, and say what limits
    ///
    /// Measures a round trip and pages without paging; then starts itself again with libnetmem.so in it, on a region and a page cache of
    /// its own, which are removed at the end, and measures first touches, a scan and syncs as any program sees them.
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchWorker(bench::Worker),
    /// Make a file the content of a region, in one atomic commit
    ///
    /// What the region held before is replaced as a whole: others see the old content or the new, never a mixture.
    /// Holes and pages of zeros take no room on the wire or on the server.
    Import(transfer::Import),
    /// Write a region to a file, as it is at one epoch
    ///
    /// The file is sparse where the region is. It is written under a temporary name and renamed when it is whole.
    Export(export::Export),
    /// Remove regions
    Rm(list::Rm),
    /// Make directories
    Mkdir(list::Mkdir),
    /// Rename a region or directory, or move it into a directory
    Mv(list::Mv),
    /// Set a region's size
    Resize(list::Resize),
    /// Keep what a region is now under a name: REGION@NAME, which can be read and never changes
    ///
    /// Takes no time and no room; from then on it keeps what the region has and changes later.
    Snapshot(snapshot::Snapshot),
    /// Make a region that begins as another is, or as one of its snapshots
    ///
    /// Takes no time and no room but for what is changed in either.
    Clone(snapshot::Clone),
    /// Show the last commits of a region, and its snapshots
    Log(snapshot::Log),
    /// Remove old snapshots of a region
    Prune(snapshot::Prune),
    /// Read back all that the server has on its disk, and compare checksums
    ///
    /// Runs beside everything else. Damaged pages are named, and make the exit status 1.
    Scrub(scrub::Scrub),
    /// Show which lines of a program waited for the network most
    ///
    /// Reads what a program left that was run with `netmem run --stats FILE,sites`. Functions and lines come from the
    /// debugging information of the program and its libraries, where they have it.
    Sites(sites::Sites),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Subcommands::Run(run) => run.run(),
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Ls(ls) => ls.run(),
        Subcommands::Stat(stat) => stat.run(),
        Subcommands::Top(top) => top.run(),
        Subcommands::Bench(bench) => bench.run(),
        Subcommands::BenchWorker(worker) => worker.run(),
        Subcommands::Import(import) => import.run(),
        Subcommands::Export(export) => export.run(),
        Subcommands::Rm(rm) => rm.run(),
        Subcommands::Mkdir(mkdir) => mkdir.run(),
        Subcommands::Mv(mv) => mv.run(),
        Subcommands::Resize(resize) => resize.run(),
        Subcommands::Snapshot(snapshot) => snapshot.run(),
        Subcommands::Clone(clone) => clone.run(),
        Subcommands::Log(log) => log.run(),
        Subcommands::Prune(prune) => prune.run(),
        Subcommands::Scrub(scrub) => scrub.run(),
        Subcommands::Sites(sites) => sites.run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // An empty line is a reader that has gone: nothing to say, and nobody to say it to.
    if !failure.line.is_empty() {
        eprintln!("{failure}");
    }
    ExitCode::from(failure.status)
}
