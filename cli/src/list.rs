//! The namespace: ls, stat, rm, mkdir, mv, resize.
//!
//! Owns: these commands and what they print. Called by: `main.rs`. Must not: touch pages.

use std::io::{self, BufWriter, Write};

use clap::Args;
use netmem_protocol::activity::{Latencies, ServerActivity};
use netmem_protocol::control::{Create, Entry, EntryKind, Rename, ServerStat};
use netmem_protocol::{ErrorCode, PAGE_SIZE, PageIndex, RegionName};

use crate::activity::percentiles;
use crate::args::{
    ServerOptions, directory_name, human_bytes, output_failed, parse_region_bytes, region_name, utc,
};
use crate::client::Client;
use crate::error::{ClientError, Failure, printable};
use crate::top::micros;

/// `netmem ls`
#[derive(Args, Debug)]
pub struct Ls {
    /// Mode, size, epoch, stored pages and time (UTC) before each name
    #[arg(short, long)]
    long: bool,
    /// Everything below too, one full name a line
    #[arg(short = 'R', long)]
    recursive: bool,
    /// A directory or a region: a/b, /a/b or /netmem/a/b; without it, the root
    #[arg(default_value = "")]
    path: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem stat`
#[derive(Args, Debug)]
pub struct Stat {
    /// A region or directory; without it, the server itself
    name: Option<String>,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem rm`
#[derive(Args, Debug)]
pub struct Rm {
    /// Directories too, with everything below them
    #[arg(short, long)]
    recursive: bool,
    /// A name that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Regions (with -r, directories)
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem mkdir`
#[derive(Args, Debug)]
pub struct Mkdir {
    /// Its parents too, and no error if it is there
    #[arg(short, long)]
    parents: bool,
    /// Permission bits, octal
    #[arg(short, long, default_value = "755", value_parser = parse_mode)]
    mode: u32,
    /// Directories
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem mv`
#[derive(Args, Debug)]
pub struct Mv {
    /// Fail if TO is there
    #[arg(short, long)]
    no_replace: bool,
    /// A region or directory
    from: String,
    /// Its new name, or a directory to move it into
    to: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem resize`
#[derive(Args, Debug)]
pub struct Resize {
    /// The region
    region: String,
    /// Bytes, with an optional suffix K, M, G or T
    #[arg(value_parser = parse_region_bytes)]
    size: u64,
    #[command(flatten)]
    server: ServerOptions,
}

/// Octal permission bits.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("{text:?} is no mode; write octal digits, 644 for example"))
}

impl Ls {
    /// Lists.
    pub fn run(&self) -> Result<u8, Failure> {
        let name = directory_name(&self.path)?;
        let mut client = self.server.connect()?;
        let entry = client.lookup(&name)?;
        let mut out = BufWriter::new(io::stdout().lock());
        if entry.kind != EntryKind::Directory {
            self.print(&mut out, &name, &entry)?;
        } else {
            self.print_directory(&mut client, &mut out, &name)?;
        }
        out.flush().map_err(output_failed)?;
        Ok(0)
    }

    /// Depth first, without recursion: the depth is the peer's to choose.
    fn print_directory(&self, client: &mut Client, out: &mut impl Write, top: &str) -> Result<(), Failure> {
        let mut waiting = vec![(top.to_owned(), None)];
        while let Some((name, entry)) = waiting.pop() {
            if let Some(entry) = &entry {
                self.print(out, &name, entry)?;
                if entry.kind != EntryKind::Directory || !self.recursive {
                    continue;
                }
            }
            let below = match client.list_all(&name) {
                Ok(below) => below,
                // Removed by somebody else since it was listed.
                Err(e) if e.code() == Some(ErrorCode::NotFound) && entry.is_some() => continue,
                Err(e) => return Err(e.into()),
            };
            for (last, entry) in below.into_iter().rev() {
                let full = if self.recursive && !name.is_empty() { format!("{name}/{last}") } else { last };
                waiting.push((full, Some(entry)));
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write, name: &str, entry: &Entry) -> Result<(), Failure> {
        let name = printable(name);
        let slash = match entry.kind {
            EntryKind::Region | EntryKind::Snapshot => String::new(),
            EntryKind::Directory => "/".to_owned(),
            EntryKind::Symlink => format!(" -> {}", target(entry)),
        };
        if !self.long {
            return writeln!(out, "{name}{slash}").map_err(output_failed);
        }
        let mode = mode_letters(entry);
        let (size, epoch, stored) = (entry.size, entry.epoch.0, entry.stored_pages);
        let time = utc(entry.modified_ns);
        writeln!(out, "{mode} {size:>14} {epoch:>6} {stored:>9} {time} {name}{slash}").map_err(output_failed)
    }
}

/// What a symbolic link says.
fn target(entry: &Entry) -> String {
    printable(&String::from_utf8_lossy(&entry.target))
}

/// `drwxr-xr-x`
fn mode_letters(entry: &Entry) -> String {
    let mut letters = String::from(match entry.kind {
        EntryKind::Region | EntryKind::Snapshot => "-",
        EntryKind::Directory => "d",
        EntryKind::Symlink => "l",
    });
    for shift in [6, 3, 0] {
        let bits = entry.mode >> shift;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(if bits & 1 != 0 { 'x' } else { '-' });
    }
    letters
}

impl Stat {
    /// Describes a name or the server.
    pub fn run(&self) -> Result<u8, Failure> {
        let text = match &self.name {
            Some(name) => {
                let name = directory_name(name)?;
                let mut client = self.server.connect()?;
                describe_entry(&name, &client.lookup(&name)?)
            }
            None => {
                let mut client = self.server.connect()?;
                let stat = client.server_stat()?;
                let activity = if client.tells_activity() { Some(client.server_activity()?) } else { None };
                describe_server(client.server().to_string(), &stat)
                    + &activity.map(describe_latencies).unwrap_or_default()
            }
        };
        io::stdout().lock().write_all(text.as_bytes()).map_err(output_failed)?;
        Ok(0)
    }
}

fn describe_entry(name: &str, entry: &Entry) -> String {
    let name = printable(name);
    let (mode, time) = (entry.mode, utc(entry.modified_ns));
    match entry.kind {
        EntryKind::Directory => {
            let name = if name.is_empty() { "/" } else { &name };
            format!("directory  {name}\nmode       {mode:04o}\nmodified   {time} UTC\n")
        }
        EntryKind::Symlink => {
            format!("link       {name}\ntarget     {}\nmodified   {time} UTC\n", target(entry))
        }
        EntryKind::Region | EntryKind::Snapshot => {
            let (size, pages) = (entry.size, PageIndex::ceil(entry.size));
            let (stored, bytes) = (entry.stored_pages, human_bytes(entry.stored_pages * PAGE_SIZE as u64));
            let human = if size < 1024 { String::new() } else { format!("{}, ", human_bytes(size)) };
            let what = if entry.kind == EntryKind::Snapshot { "snapshot" } else { "region  " };
            format!(
                "{what}   {name}\nnumber     {}\nsize       {size} bytes ({human}{pages} pages)\nepoch      {}\n\
                 stored     {stored} pages ({bytes})\nmode       {mode:04o}\nnames      {}\nmodified   {time} UTC\n",
                entry.region, entry.epoch, entry.links
            )
        }
    }
}

fn describe_server(address: String, stat: &ServerStat) -> String {
    let bytes = |pages: u64| human_bytes(pages.saturating_mul(PAGE_SIZE as u64));
    let (version, store) = (printable(&stat.version), printable(&stat.store));
    format!(
        "server     {address}\nversion    {version}\nstore      {store}\nuptime     {} s\nregions    {}\n\
         clients    {}\nstored     {} pages ({} of {})\nfetches    {} ({} pages sent)\ncommits    {} ({} pages)\n",
        stat.uptime_s,
        stat.regions,
        stat.connections,
        stat.stored_pages,
        bytes(stat.stored_pages),
        bytes(stat.pages_max),
        stat.fetches,
        stat.pages_sent,
        stat.commits,
        stat.pages_committed
    )
}

/// How long the server took over requests since its start.
fn describe_latencies(activity: ServerActivity) -> String {
    let nothing = Latencies::default();
    let line = |what: &str, latencies: &Latencies| match percentiles(&nothing, latencies) {
        Some(found) => format!("{what:13}p50 {}, p99 {}\n", micros(found.p50_us), micros(found.p99_us)),
        None => String::new(),
    };
    line("fetch took", &activity.fetch_ns) + &line("commit took", &activity.commit_ns)
}

impl Rm {
    /// Removes every name it can and reports each that it can't.
    pub fn run(&self) -> Result<u8, Failure> {
        let names: Vec<String> = self.names.iter().map(|name| region_name(name)).collect::<Result<_, _>>()?;
        let mut client = self.server.connect()?;
        let mut status = 0;
        for name in names {
            match self.remove(&mut client, &name) {
                Ok(()) => {}
                Err(error @ ClientError::Answer { .. }) => {
                    eprintln!("{}", Failure::from(error));
                    status = 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(status)
    }

    fn remove(&self, client: &mut Client, name: &str) -> Result<(), ClientError> {
        match client.remove(name, false) {
            Err(e) if e.code() == Some(ErrorCode::NotFound) && self.force => Ok(()),
            Err(e) if e.code() == Some(ErrorCode::IsDirectory) => {
                if self.recursive {
                    return remove_tree(client, name);
                }
                let text =
                    format!("{name}: is a directory; remove it and everything below with netmem rm -r");
                Err(ClientError::Answer { code: ErrorCode::IsDirectory, text })
            }
            other => other,
        }
    }
}

/// A directory is removed when it comes up again after everything that was below it.
fn remove_tree(client: &mut Client, top: &str) -> Result<(), ClientError> {
    let gone = |result: Result<(), ClientError>| match result {
        Err(e) if e.code() == Some(ErrorCode::NotFound) => Ok(()),
        other => other,
    };
    let mut waiting = vec![(top.to_owned(), false)];
    while let Some((name, emptied)) = waiting.pop() {
        if emptied {
            gone(client.remove(&name, true))?;
            continue;
        }
        let below = client.list_all(&name)?;
        waiting.push((name.clone(), true));
        for (last, entry) in below {
            let full = format!("{name}/{last}");
            match entry.kind {
                EntryKind::Directory => waiting.push((full, false)),
                EntryKind::Region | EntryKind::Symlink | EntryKind::Snapshot => {
                    gone(client.remove(&full, false))?
                }
            }
        }
    }
    Ok(())
}

impl Mkdir {
    /// Makes the directories.
    pub fn run(&self) -> Result<u8, Failure> {
        let names: Vec<String> = self.names.iter().map(|name| region_name(name)).collect::<Result<_, _>>()?;
        let mut client = self.server.connect()?;
        for name in names {
            if !self.parents {
                client.make_dir(&name, self.mode)?;
                continue;
            }
            for (end, _) in name.match_indices('/').chain([(name.len(), "")]) {
                match client.make_dir(&name[..end], self.mode) {
                    Err(e) if e.code() != Some(ErrorCode::Exists) => return Err(e.into()),
                    Ok(_) | Err(_) => {}
                }
            }
            if client.lookup(&name)?.kind != EntryKind::Directory {
                return Err(Failure::new(
                    name,
                    "a region has this name",
                    "choose another, or remove it first",
                ));
            }
        }
        Ok(0)
    }
}

impl Mv {
    /// Renames, into a directory if TO is one.
    pub fn run(&self) -> Result<u8, Failure> {
        let from = region_name(&self.from)?;
        let mut to = directory_name(&self.to)?;
        let mut client = self.server.connect()?;
        let into = match client.lookup(&to) {
            Ok(entry) => entry.kind == EntryKind::Directory,
            Err(e) if e.code() == Some(ErrorCode::NotFound) => false,
            Err(e) => return Err(e.into()),
        };
        if into {
            let last = RegionName::parse(&from).map(|name| name.last().to_owned()).unwrap_or_default();
            to = if to.is_empty() { last } else { format!("{to}/{last}") };
        }
        client.rename(&Rename { from, to, no_replace: self.no_replace, exchange: false })?;
        Ok(0)
    }
}

impl Resize {
    /// Sets the size, as a commit of its own.
    pub fn run(&self) -> Result<u8, Failure> {
        let name = region_name(&self.region)?;
        let mut client = self.server.connect()?;
        let entry = client.open(&name, Create::Never, 0)?;
        let committed = client.resize(entry.region, self.size)?;
        client.close(entry.region)?;
        let name = printable(&name);
        let line =
            format!("{name}: {} bytes as epoch {}, before {}\n", committed.size, committed.epoch, entry.size);
        io::stdout().lock().write_all(line.as_bytes()).map_err(output_failed)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, EntryKind, describe_entry, mode_letters, parse_mode};
    use netmem_protocol::{Epoch, RegionId};

    #[test]
    fn a_region_is_described_in_words_and_units() {
        let entry = Entry {
            kind: EntryKind::Region,
            region: RegionId(5),
            size: 104_857_601,
            epoch: Epoch(2),
            mode: 0o640,
            modified_ns: 0,
            stored_pages: 24_400,
            created: false,
            links: 1,
            target: Vec::new(),
        };
        let text = describe_entry("a/b", &entry);
        for line in
            ["region     a/b", "104857601 bytes (100.0 MiB, 25601 pages)", "24400 pages (95.3 MiB)", "0640"]
        {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(mode_letters(&entry), "-rw-r-----");
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(parse_mode("644"), Ok(0o644));
        assert!(parse_mode("8").is_err() && parse_mode("77777").is_err());
    }
}
