//! Where the files of a durable store lie.
//!
//! Owns: the two traits, and a directory of the file system behind them. Called by: pages, index. Must not: know what the
//! files hold. The other disk is `simulated.rs`, which loses power.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::uio::pwritev;

/// A file. What was written is there after a crash of the machine if [`DiskFile::sync`] has returned since, and may be there, whole or
/// in part, if it has not.
pub trait DiskFile: Debug + Send + Sync {
    /// Bytes.
    fn length(&self) -> io::Result<u64>;
    /// Makes it longer, by zeros, or shorter.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Fills `bytes` from `at` on; UnexpectedEof behind the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all of the slices, one behind the other.
    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()>;
    /// Returns when everything written before is on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Gives the room of a range back; it reads as zeros from then on. That it can't be done is no error.
    fn punch(&self, at: u64, length: u64);
}

/// Files by name.
pub trait Disk: Send + Sync {
    /// Opens a file, which is made if it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether there is a file of this name.
    fn has(&self, name: &str) -> bool;
    /// Gives a file another name, whatever has that. It has either the one or the other after a crash, and the other when this has returned.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// For messages.
    fn name(&self) -> String;
}

/// A directory that this process alone may use.
pub struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: Flock<File>,
}

/// The file whose lock says that a directory is in use.
const LOCK: &str = "lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl Directory {
    /// Opens a directory, and makes it if `create` says so. An error is a line for the user.
    pub fn open(path: &Path, create: bool) -> Result<Directory, String> {
        let shown = path.display();
        if create {
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
            made.map_err(|error| format!("the store's directory {shown} can't be made: {error}"))?;
        }
        let lock = open(&path.join(LOCK), create)
            .map_err(|error| format!("{shown} can't be used as a store's directory: {error}"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => format!(
                "{shown} is in use by another netmem-server; stop that one, or name another directory"
            ),
            errno => format!("{shown} can't be locked: {errno}"),
        })?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(FILE_MODE).open(path)
}

impl Disk for Directory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = match open(&path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = open(&path, true)?;
                // The name has to be there after a crash, as well as what is in the file.
                File::open(&self.path)?.sync_all()?;
                file
            }
            opened => opened?,
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        File::open(&self.path)?.sync_all()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, at)
    }

    fn write_at(&self, mut slices: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
        while !slices.is_empty() {
            let offset = i64::try_from(at).map_err(|_| ErrorKind::FileTooLarge)?;
            match pwritev(&self.0, slices, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn punch(&self, at: u64, length: u64) {
        let (Ok(at), Ok(length)) = (i64::try_from(at), i64::try_from(length)) else { return };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let _ = fallocate(&self.0, flags, at, length);
    }
}
