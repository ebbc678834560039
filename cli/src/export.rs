//! Files out: a region as it is at one epoch.
//!
//! Owns: the export, to a file or as a stream. Called by: `main.rs`. Must not: hold a whole region in memory, or leave
//! half a file behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use netmem_protocol::control::{Create, Entry};
use netmem_protocol::{Epoch, PAGE_SIZE, PageIndex, Run};

use crate::args::{ServerOptions, output_failed, region_name};
use crate::client::Client;
use crate::error::{ClientError, Failure};
use crate::transfer::{CHUNK_BYTES, file_failure, progress, summary};

/// `netmem export`
#[derive(Args, Debug)]
pub struct Export {
    /// The region: a/b, /a/b or /netmem/a/b
    region: String,
    /// A file, or - for standard output
    file: PathBuf,
    /// No progress bar and no summary
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// A reader that has had enough (`netmem export data - | head`) is not worth a line.
fn stream_failure(path: &Path, error: &io::Error) -> Failure {
    let mut failure = file_failure(path, error, "free some space, or write elsewhere");
    if error.kind() == io::ErrorKind::BrokenPipe {
        failure.line.clear();
    }
    failure
}

/// What an export reads: a region as it was at one epoch.
struct Picture {
    entry: Entry,
    epoch: Epoch,
    size: u64,
    /// All pages that may be other than zeros, in order, within `size`.
    runs: Vec<Run>,
}

impl Export {
    /// Exports.
    pub fn run(&self) -> Result<u8, Failure> {
        let start = Instant::now();
        let name = region_name(&self.region)?;
        let mut client = self.server.connect()?;
        let picture = Picture::open(&mut client, &name)?;
        let asked: u64 = picture.runs.iter().map(|run| u64::from(run.count)).sum();
        let bar = progress(asked * PAGE_SIZE as u64, self.quiet);
        let to_stdout = self.file == Path::new("-");
        let data_pages = if to_stdout {
            write_stream(&mut client, &picture, &self.file, &mut io::stdout().lock(), &bar)?
        } else {
            self.write_file(&mut client, &picture, &bar)?
        };
        bar.finish_and_clear();
        client.close(picture.entry.region)?;
        if !self.quiet {
            let words = ("exported", "of");
            let line = summary(words, picture.size, data_pages, picture.epoch, start.elapsed());
            let told = if to_stdout {
                io::stderr().write_all(line.as_bytes())
            } else {
                io::stdout().write_all(line.as_bytes())
            };
            told.map_err(output_failed)?;
        }
        Ok(0)
    }

    /// Into a new file beside the one that is named, which then takes its name; into a device or pipe as a stream.
    fn write_file(&self, client: &mut Client, picture: &Picture, bar: &ProgressBar) -> Result<u64, Failure> {
        let failed = |e: io::Error| {
            file_failure(&self.file, &e, "name a file that you may write, or - for standard output")
        };
        // Through a symbolic link the target is replaced, not the link.
        let target = fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let mut mode = picture.entry.mode & 0o777;
        match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::new(
                    self.file.display(),
                    "is a directory",
                    "name the file to write in it",
                ));
            }
            Ok(metadata) if !metadata.is_file() => {
                let mut device = File::options().write(true).open(&target).map_err(failed)?;
                return write_stream(client, picture, &self.file, &mut device, bar);
            }
            Ok(metadata) => mode = metadata.permissions().mode() & 0o7777,
            Err(_) => {}
        }
        let directory =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".netmem-export-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .map_err(failed)?;
        let file = temporary.as_file();
        file.set_len(picture.size).map_err(failed)?;
        let mut data_pages = 0;
        client.fetch_each(
            picture.entry.region,
            picture.epoch,
            picture.runs.iter().copied(),
            |page, data| {
                bar.inc(PAGE_SIZE as u64);
                let Some(data) = data else { return Ok(()) };
                data_pages += 1;
                let offset = page * PAGE_SIZE as u64;
                let length = (picture.size - offset).min(PAGE_SIZE as u64) as usize;
                file.write_all_at(&data[..length], offset).map_err(failed)
            },
        )?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        temporary.persist(&target).map_err(|e| failed(e.error))?;
        Ok(data_pages)
    }
}

impl Picture {
    fn open(client: &mut Client, name: &str) -> Result<Picture, Failure> {
        let entry = client.open(name, Create::Never, 0)?;
        // "What changed since before the beginning" is everything that is stored. The epoch named in the answer stays
        // readable for this connection, so the picture can't move under the export.
        let changes = client.changes(entry.region, Epoch(0))?;
        let end = PageIndex::ceil(changes.size).0;
        let mut runs = Vec::with_capacity(changes.runs.len());
        for run in changes.runs {
            let first = run.first.0;
            if first < end {
                // A run's own count is an u32, so the smaller of the two fits.
                runs.push(Run::new(first, (end - first).min(u64::from(run.count)) as u32));
            }
        }
        Ok(Picture { entry, epoch: changes.epoch, size: changes.size, runs })
    }

    /// The parts of the runs that lie in pages `first` to `end`.
    fn within(&self, first: u64, end: u64) -> impl Iterator<Item = Run> {
        let start = self.runs.partition_point(move |run| run.end() <= first);
        self.runs[start..].iter().take_while(move |run| run.first.0 < end).map(move |run| {
            let (from, to) = (run.first.0.max(first), run.end().min(end));
            Run::new(from, (to - from) as u32)
        })
    }
}

/// In order, holes as zeros, a chunk at a time.
fn write_stream(
    client: &mut Client,
    picture: &Picture,
    path: &Path,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut at, mut data_pages) = (0, 0);
    while at < picture.size {
        buffer.fill(0);
        let first = at / PAGE_SIZE as u64;
        let runs = picture.within(first, first + (CHUNK_BYTES / PAGE_SIZE) as u64);
        client.fetch_each(picture.entry.region, picture.epoch, runs, |page, data| {
            bar.inc(PAGE_SIZE as u64);
            if let Some(data) = data {
                data_pages += 1;
                let offset = (page - first) as usize * PAGE_SIZE;
                buffer[offset..offset + PAGE_SIZE].copy_from_slice(data);
            }
            Ok::<(), ClientError>(())
        })?;
        let count = usize::try_from(picture.size - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        out.write_all(&buffer[..count]).map_err(|e| stream_failure(path, &e))?;
        at += count as u64;
    }
    out.flush().map_err(|e| stream_failure(path, &e))?;
    Ok(data_pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_clipped_to_a_window() {
        let entry = Entry {
            kind: netmem_protocol::control::EntryKind::Region,
            region: netmem_protocol::RegionId(1),
            size: 0,
            epoch: Epoch(1),
            mode: 0,
            modified_ns: 0,
            stored_pages: 0,
            created: false,
            links: 1,
            target: Vec::new(),
        };
        let runs = vec![Run::new(0, 4), Run::new(10, 10), Run::new(30, 1)];
        let picture = Picture { entry, epoch: Epoch(1), size: 0, runs };
        let within = |first, end| picture.within(first, end).collect::<Vec<_>>();
        assert_eq!(within(2, 12), [Run::new(2, 2), Run::new(10, 2)]);
        assert_eq!(within(20, 30), []);
        assert_eq!(within(19, 31), [Run::new(19, 1), Run::new(30, 1)]);
    }
}
