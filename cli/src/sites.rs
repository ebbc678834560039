//! `netmem sites`: the lines of a program that waited for the network most.
//!
//! Owns: reading what NETMEM_STATS=…,sites wrote, and finding functions and lines for its addresses. Called by: main. Must not: trust
//! the file: a line that is none is skipped, and what can't be resolved is shown as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use addr2line::Loader;
use clap::Args;
use serde::Serialize;

use crate::args::output_failed;
use crate::error::{Failure, describe_io, printable};

/// Bytes of a file of statistics that are read at the most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The command.
#[derive(Args, Debug)]
pub struct Sites {
    /// What NETMEM_STATS=FILE,sites wrote; -: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many places to show; 0: all
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    lines: usize,
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// One place, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Site {
    /// `touch`, `call` or `sync`.
    wait: String,
    count: u64,
    total_ns: u64,
    /// As the file's own tables have it.
    address: u64,
    /// The file, or `-`.
    file: String,
    function: Option<String>,
    /// `path:line`.
    line: Option<String>,
}

impl Sites {
    /// Runs the command.
    pub fn run(&self) -> Result<u8, Failure> {
        let mut sites = parse(&self.read()?);
        if sites.is_empty() {
            return Err(Failure::new(
                self.file.display().to_string(),
                "no places in it",
                "run the program with NETMEM_STATS=FILE,sites, and let it end by exit",
            ));
        }
        sites.sort_by_key(|site| std::cmp::Reverse(site.total_ns));
        let total: u64 = sites.iter().map(|site| site.total_ns).sum();
        if self.lines != 0 {
            sites.truncate(self.lines);
        }
        resolve(&mut sites);
        let text = if self.json {
            serde_json::to_string(&sites).unwrap_or_default() + "\n"
        } else {
            table(&sites, total)
        };
        std::io::stdout().write_all(text.as_bytes()).map_err(output_failed)?;
        Ok(0)
    }

    fn read(&self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let read = if self.file == Path::new("-") {
            std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(&self.file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        };
        read.map_err(|error| {
            Failure::new(
                self.file.display().to_string(),
                describe_io(&error),
                "name the file that NETMEM_STATS=FILE,sites wrote",
            )
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The places of all processes that wrote to the file; the same place of several is one.
fn parse(text: &str) -> Vec<Site> {
    let mut sites: BTreeMap<(String, String, u64), Site> = BTreeMap::new();
    for site in text.lines().filter_map(parse_line) {
        let key = (site.file.clone(), site.wait.clone(), site.address);
        let known = sites.entry(key).or_insert(Site { count: 0, total_ns: 0, ..site.clone() });
        known.count = known.count.saturating_add(site.count);
        known.total_ns = known.total_ns.saturating_add(site.total_ns);
    }
    sites.into_values().collect()
}

/// `site WAIT COUNT NS ADDRESS SYMBOL FILE`
fn parse_line(line: &str) -> Option<Site> {
    let mut words = line.strip_prefix("site ")?.splitn(6, ' ');
    let wait = words.next().filter(|wait| matches!(*wait, "touch" | "call" | "sync"))?;
    let count = words.next()?.parse().ok()?;
    let total_ns = words.next()?.parse().ok()?;
    let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let symbol = words.next()?;
    let file = words.next()?.to_owned();
    let function = (symbol != "-").then(|| symbol.to_owned());
    Some(Site { wait: wait.to_owned(), count, total_ns, address, file, function, line: None })
}

/// Fills in functions and lines where the files have tables of them.
fn resolve(sites: &mut [Site]) {
    let mut loaders: BTreeMap<String, Option<Loader>> = BTreeMap::new();
    for site in sites.iter_mut().filter(|site| site.file != "-") {
        let loader = loaders.entry(site.file.clone()).or_insert_with(|| Loader::new(&site.file).ok());
        let Some(loader) = loader else { continue };
        if let Ok(Some(location)) = loader.find_location(site.address)
            && let (Some(file), Some(line)) = (location.file, location.line)
        {
            site.line = Some(format!("{file}:{line}"));
        }
        let inner = loader.find_frames(site.address).ok().and_then(|mut frames| frames.next().ok().flatten());
        let name = inner.and_then(|frame| frame.function?.demangle().ok().map(|name| name.into_owned()));
        if let Some(name) = name.or_else(|| loader.find_symbol(site.address).map(str::to_owned)) {
            site.function = Some(name);
        }
    }
}

fn table(sites: &[Site], total: u64) -> String {
    let mut out = format!(
        "{:>6}  {:>9}  {:>9}  {:>10}  {:5}  where\n",
        "share", "total ms", "times", "µs a time", "wait"
    );
    for site in sites {
        let share = site.total_ns as f64 * 100.0 / total.max(1) as f64;
        let each = site.total_ns as f64 / 1e3 / site.count.max(1) as f64;
        let _ = writeln!(
            out,
            "{share:5.1}%  {:9.1}  {:9}  {each:10.1}  {:5}  {}",
            site.total_ns as f64 / 1e6,
            site.count,
            site.wait,
            place(site)
        );
    }
    out
}

/// `function, path:line`, as far as it is known; at the least the file and the address.
fn place(site: &Site) -> String {
    if site.file == "-" {
        return if site.address == 0 { "?".to_owned() } else { format!("{:#x}", site.address) };
    }
    let function = site.function.as_deref().map(printable);
    match (&site.line, function) {
        (Some(line), Some(function)) => format!("{function}, {}", printable(line)),
        (Some(line), None) => printable(line),
        (None, Some(function)) => format!("{function}, {}+{:#x}", printable(&site.file), site.address),
        (None, None) => format!("{}+{:#x}", printable(&site.file), site.address),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_line, place, table};

    #[test]
    fn lines_of_several_processes_are_added_and_others_are_skipped() {
        let text = "engine uffd\nfaults 3\nsite touch 2 3000 0x10 main /a b\nsite touch 1 500 0x10 main /a b\n\
                    site sync 1 9 0x20 - -\nsite other 1 1 0x1 - -\nsite touch x 1 0x1 - -\nsite\n";
        let sites = parse(text);
        assert_eq!(sites.len(), 2);
        let both = sites.iter().find(|site| site.wait == "touch").unwrap();
        assert_eq!((both.count, both.total_ns, both.file.as_str()), (3, 3500, "/a b"));
    }

    #[test]
    fn what_is_not_known_is_shown_as_it_is() {
        let site = parse_line("site sync 2 4000000 0x0 - -").unwrap();
        assert_eq!(place(&site), "?");
        assert_eq!(place(&parse_line("site call 1 1 0x1f - /x/\u{1b}y").unwrap()), "/x/\\u{1b}y+0x1f");
        let text = table(&[site], 4_000_000);
        assert!(text.ends_with("100.0%        4.0          2      2000.0  sync   ?\n"), "{text}");
    }
}
