//! Files in: import as one atomic commit; and what it shares with export.
//!
//! Owns: the import, the progress bar and summary of both. Called by: `main.rs`, `export.rs`. Must not: hold a whole
//! file in memory, or leave half a region behind.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use netmem_protocol::control::{Create, Entry};
use netmem_protocol::{Epoch, ErrorCode, PAGE_SIZE, PageIndex};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::args::{ServerOptions, output_failed, region_name};
use crate::bulk::{CommitPlan, Staging};
use crate::client::Client;
use crate::error::{ClientError, Failure, describe_io};
use crate::list::parse_mode;

/// Bytes read from a file at once, and bytes of an export that go to a pipe at once.
pub(crate) const CHUNK_BYTES: usize = 4 << 20;

/// `netmem import`
#[derive(Args, Debug)]
pub struct Import {
    /// A file, or - for standard input
    file: PathBuf,
    /// The region that gets its content: a/b, /a/b or /netmem/a/b
    region: String,
    /// Permission bits if the region is created, octal
    #[arg(short, long, default_value = "644", value_parser = parse_mode)]
    mode: u32,
    /// No progress bar and no summary
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// A failure of a local file.
pub(crate) fn file_failure(path: &Path, error: &io::Error, what_to_do: &str) -> Failure {
    Failure::new(path.display(), describe_io(error), what_to_do)
}

pub(crate) fn progress(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn is_zero(page: &[u8]) -> bool {
    page == &[0; PAGE_SIZE][..page.len()]
}

/// `imported N bytes (P pages, Z zero) as epoch E in S s`, from the words before and behind the figures.
pub(crate) fn summary(
    words: (&str, &str),
    bytes: u64,
    data_pages: u64,
    epoch: Epoch,
    took: Duration,
) -> String {
    let (verb, link) = words;
    let pages = PageIndex::ceil(bytes).0;
    let (zero, seconds) = (pages - data_pages, took.as_secs_f64());
    format!("{verb} {bytes} bytes ({pages} pages, {zero} zero) {link} epoch {epoch} in {seconds:.2} s\n")
}

impl Import {
    /// Imports.
    pub fn run(&self) -> Result<u8, Failure> {
        let start = Instant::now();
        let name = region_name(&self.region)?;
        let source = Source::open(&self.file)?;
        let mut client = self.server.connect()?;
        let entry = client.open(&name, Create::IfMissing, self.mode)?;
        let result = self.transfer(&mut client, &name, &entry, source);
        if result.is_err() && entry.created {
            // Made a moment ago for this import, and nobody has committed to it. A failure to clean up must not
            // hide the failure that is being reported.
            let _ = remove_if_untouched(&mut client, &name, &entry);
        }
        let (bytes, data_pages, epoch) = result?;
        client.close(entry.region)?;
        if !self.quiet {
            let line = summary(("imported", "as"), bytes, data_pages, epoch, start.elapsed());
            io::stdout().write_all(line.as_bytes()).map_err(output_failed)?;
        }
        Ok(0)
    }

    /// Bytes, pages that were sent, and the epoch.
    fn transfer(
        &self,
        client: &mut Client,
        name: &str,
        entry: &Entry,
        source: Source,
    ) -> Result<(u64, u64, Epoch), Failure> {
        let limit = client.hello().region_bytes_max;
        let bar = progress(source.size_hint(), self.quiet);
        let mut staging = client.stage(entry.region);
        let sent = match source {
            Source::Seekable(file, size) if size > limit => {
                drop(file);
                let why = format!("{size} bytes, and the server allows {limit} in a region");
                return Err(Failure::new(self.file.display(), why, "split the file"));
            }
            Source::Seekable(file, size) => stage_file(&mut staging, &self.file, &file, size, &bar)?,
            Source::Stream(stream) => stage_stream(&mut staging, &self.file, stream, limit, &bar)?,
        };
        // What was there is replaced whatever it is, so the base is asked for as late as can be; a commit that slips
        // in between is refused by `strict` rather than merged into a mixture of two files.
        let now = staging.client().lookup(name)?;
        if now.region != entry.region {
            return Err(Failure::new(name, "it was renamed or removed meanwhile", "import again"));
        }
        let plan = CommitPlan { base: now.epoch, strict: true, cut: Some(0), size: Some(sent.bytes) };
        let committed = staging.finish(plan).map_err(|error| match error.code() {
            Some(ErrorCode::Stale) => {
                Failure::new(name, "somebody else committed at the same moment", "import again")
            }
            _ => error.into(),
        })?;
        bar.finish_and_clear();
        if committed.size != sent.bytes {
            let why =
                format!("the server reports {} bytes after {} were imported", committed.size, sent.bytes);
            return Err(Failure::new(
                name,
                why,
                "somebody resized it at the same moment: look with netmem stat",
            ));
        }
        Ok((sent.bytes, sent.data_pages, committed.epoch))
    }
}

fn remove_if_untouched(client: &mut Client, name: &str, entry: &Entry) -> Result<(), ClientError> {
    let now = client.lookup(name)?;
    if now.region == entry.region && now.epoch == entry.epoch { client.remove(name, false) } else { Ok(()) }
}

enum Source {
    Seekable(File, u64),
    Stream(Box<dyn Read>),
}

impl Source {
    fn open(path: &Path) -> Result<Source, Failure> {
        if path == Path::new("-") {
            return Ok(Source::Stream(Box::new(io::stdin())));
        }
        let failed =
            |e: io::Error| file_failure(path, &e, "name a file that you may read, or - for standard input");
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::new(path.display(), "is a directory", "import its files one by one"));
        }
        Ok(if metadata.is_file() {
            Source::Seekable(file, metadata.len())
        } else {
            Source::Stream(Box::new(file))
        })
    }

    fn size_hint(&self) -> u64 {
        match self {
            Source::Seekable(_, size) => *size,
            Source::Stream(_) => 0,
        }
    }
}

/// What has been staged.
#[derive(Default)]
struct Staged {
    bytes: u64,
    data_pages: u64,
}

impl Staged {
    /// Stages the pages of `chunk`, which starts at page `first`; a short last page is filled up with zeros. Pages of
    /// zeros are not sent: the commit cuts the region to nothing before it lays the pages down.
    fn chunk(&mut self, staging: &mut Staging<'_>, first: u64, chunk: &[u8]) -> Result<(), ClientError> {
        for (page, bytes) in (first..).zip(chunk.chunks(PAGE_SIZE)) {
            if is_zero(bytes) {
                continue;
            }
            let mut last = [0; PAGE_SIZE];
            let data = match bytes.first_chunk::<PAGE_SIZE>() {
                Some(whole) => whole,
                None => {
                    last[..bytes.len()].copy_from_slice(bytes);
                    &last
                }
            };
            staging.push(page, Some(data))?;
            self.data_pages += 1;
        }
        Ok(())
    }
}

/// Stages what lies between the holes of a file.
fn stage_file(
    staging: &mut Staging<'_>,
    path: &Path,
    file: &File,
    size: u64,
    bar: &ProgressBar,
) -> Result<Staged, Failure> {
    let mut staged = Staged { bytes: size, data_pages: 0 };
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while let Some((start, end)) =
        next_data(file, at, size).map_err(|e| file_failure(path, &e, "check the disk"))?
    {
        at = start;
        while at < end {
            let count = usize::try_from(end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let chunk = &mut buffer[..count];
            file.read_exact_at(chunk, at).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Failure::new(
                    path.display(),
                    "it became shorter while it was read",
                    "import it when it is at rest",
                ),
                _ => file_failure(path, &e, "check the disk"),
            })?;
            staged.chunk(staging, at / PAGE_SIZE as u64, chunk)?;
            at += count as u64;
            bar.set_position(at);
        }
    }
    Ok(staged)
}

/// The next stretch of data at or behind `from`, as whole pages within `size`. A file system without holes is all data.
fn next_data(file: &File, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= size {
        return Ok(None);
    }
    let page = PAGE_SIZE as u64;
    let start = match lseek(file, from as i64, Whence::SeekData) {
        Ok(start) => start as u64,
        Err(Errno::ENXIO) => return Ok(None),
        Err(Errno::EINVAL | Errno::ENOTSUP) => return Ok(Some((from, size))),
        Err(e) => return Err(e.into()),
    };
    let end = match lseek(file, start as i64, Whence::SeekHole) {
        Ok(end) => end as u64,
        Err(Errno::ENXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let (start, end) = (start / page * page, (end.div_ceil(page) * page).min(size));
    Ok((start < end).then_some((start.max(from), end)))
}

/// Stages all that comes from a pipe.
fn stage_stream(
    staging: &mut Staging<'_>,
    path: &Path,
    stream: Box<dyn Read>,
    limit: u64,
    bar: &ProgressBar,
) -> Result<Staged, Failure> {
    let mut staged = Staged::default();
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, stream);
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        // A pipe gives little at a time; pages need whole chunks.
        reader
            .by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .map_err(|e| file_failure(path, &e, "check what writes to it"))?;
        if staged.bytes + chunk.len() as u64 > limit {
            let why = format!("more than the {limit} bytes that the server allows in a region");
            return Err(Failure::new(path.display(), why, "split the data"));
        }
        staged.chunk(staging, staged.bytes / PAGE_SIZE as u64, &chunk)?;
        staged.bytes += chunk.len() as u64;
        bar.set_length(staged.bytes);
        bar.set_position(staged.bytes);
        if chunk.len() < CHUNK_BYTES && reader.fill_buf().is_ok_and(<[u8]>::is_empty) {
            return Ok(staged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_sparse_file_is_found_in_whole_pages() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"x", 300_000).unwrap();
        let (start, end) = next_data(&file, 0, 1 << 20).unwrap().unwrap();
        assert!(start % 4096 == 0 && end % 4096 == 0, "{start} {end}");
        assert!(start <= 300_000 && 300_000 < end);
        assert_eq!(next_data(&file, end, 1 << 20).unwrap(), None);
        assert_eq!(next_data(&file, 1 << 20, 1 << 20).unwrap(), None);
    }

    #[test]
    fn the_summary_counts_bytes_pages_and_seconds() {
        let line = summary(("imported", "as"), 104_857_600, 24_400, Epoch(2), Duration::from_millis(210));
        assert_eq!(line, "imported 104857600 bytes (25600 pages, 1200 zero) as epoch 2 in 0.21 s\n");
    }
}
