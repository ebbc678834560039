//! A disk in memory that fails, or loses power, when a test says so.
//!
//! Owns: for each file what is on the platter, and what was written and not synced since. Called by: tests. Must not: be
//! reachable from the command line.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};

/// What happens at the operation that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: that operation and all later ones fail.
    PowerCut,
    /// That one operation fails, as on a disk that is full; of a write, the first half is there.
    Full,
    /// That one operation fails, as on a disk that is broken.
    Broken,
}

/// Bytes that a disk writes all or nothing.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at as usize..end].copy_from_slice(bytes);
            }
            Change::Length(length) => to.resize(*length as usize, 0),
        }
    }
}

#[derive(Clone, Default, Debug)]
struct Image {
    /// What reads see.
    now: Vec<u8>,
    /// What is there after a power cut at the least.
    synced: Vec<u8>,
    /// What may be.
    since: Vec<Change>,
}

#[derive(Debug)]
struct State {
    files: Mutex<BTreeMap<String, Image>>,
    /// Operations that change something, so far.
    operations: AtomicU64,
    /// The operation that fails, and how; counted from 0.
    fault: Option<(u64, Fault)>,
}

/// The disk. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct Simulated(Arc<State>);

#[derive(Debug)]
struct SimulatedFile {
    disk: Simulated,
    name: String,
}

impl Simulated {
    /// An empty disk whose operation number `fault.0` fails: writes, changes of length and of names, and syncs count, from 0.
    pub fn new(fault: Option<(u64, Fault)>) -> Self {
        Self::with(BTreeMap::new(), fault)
    }

    fn with(files: BTreeMap<String, Image>, fault: Option<(u64, Fault)>) -> Self {
        Simulated(Arc::new(State { files: Mutex::new(files), operations: AtomicU64::new(0), fault }))
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Image>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::SeqCst)
    }

    /// What a machine finds that starts again after the power went: all that was synced, and of what was written since whatever
    /// `dice` lets through, sector by sector. `dice` gives a bit for each.
    pub fn after_power_cut(&self, fault: Option<(u64, Fault)>, mut dice: impl FnMut() -> bool) -> Self {
        let mut files = BTreeMap::new();
        for (name, image) in &*self.files() {
            let mut bytes = image.synced.clone();
            for change in &image.since {
                let Change::Write(at, written) = change else {
                    if dice() {
                        change.apply(&mut bytes);
                    }
                    continue;
                };
                for (number, sector) in written.chunks(SECTOR).enumerate() {
                    if dice() {
                        let at = at + (number * SECTOR) as u64;
                        Change::Write(at, sector.to_vec()).apply(&mut bytes);
                    }
                }
            }
            files.insert(name.clone(), Image { now: bytes.clone(), synced: bytes, since: Vec::new() });
        }
        Self::with(files, fault)
    }

    /// What a process finds that starts again after one was killed: all that was written.
    pub fn after_kill(&self, fault: Option<(u64, Fault)>) -> Self {
        Self::with(self.files().clone(), fault)
    }

    /// Bytes of a file.
    pub fn length(&self, name: &str) -> u64 {
        self.files().get(name).map_or(0, |image| image.now.len() as u64)
    }

    /// Changes a byte where it lies.
    pub fn flip(&self, name: &str, at: u64) {
        if let Some(image) = self.files().get_mut(name) {
            image.now[at as usize] ^= 1;
        }
    }

    /// Counts an operation; `Some` if it fails.
    fn count(&self) -> Option<(Fault, io::Error)> {
        let number = self.0.operations.fetch_add(1, Ordering::SeqCst);
        let (at, fault) = self.0.fault?;
        match fault {
            Fault::PowerCut if number >= at => Some((fault, io::Error::other("the power is gone"))),
            Fault::Full if number == at => Some((fault, ErrorKind::StorageFull.into())),
            Fault::Broken if number == at => Some((fault, io::Error::other("the disk is broken"))),
            Fault::PowerCut | Fault::Full | Fault::Broken => None,
        }
    }
}

impl Disk for Simulated {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.files().entry(name.to_owned()).or_default();
        Ok(Arc::new(SimulatedFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn has(&self, name: &str) -> bool {
        self.files().contains_key(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if let Some((_, error)) = self.count() {
            return Err(error);
        }
        let mut files = self.files();
        let image = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), image);
        Ok(())
    }

    fn name(&self) -> String {
        "a simulated disk".to_owned()
    }
}

impl SimulatedFile {
    fn with<T>(&self, with: impl FnOnce(&mut Image) -> T) -> T {
        with(self.disk.files().entry(self.name.clone()).or_default())
    }

    fn change(&self, change: Change) {
        self.with(|image| {
            change.apply(&mut image.now);
            image.since.push(change);
        });
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.with(|image| image.now.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if let Some((_, error)) = self.disk.count() {
            return Err(error);
        }
        self.change(Change::Length(length));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.with(|image| {
            let at = at as usize;
            let from = image.now.get(at..at + bytes.len()).ok_or(ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(from);
            Ok(())
        })
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        let failed = self.disk.count();
        if failed.is_some() {
            bytes.truncate(bytes.len() / 2);
        }
        self.change(Change::Write(at, bytes));
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.count() {
            // A sync that fails says nothing of what reached the disk, and the next one does not make up for it.
            Some((_, error)) => Err(error),
            None => {
                self.with(|image| {
                    for change in image.since.drain(..) {
                        change.apply(&mut image.synced);
                    }
                });
                Ok(())
            }
        }
    }

    fn punch(&self, at: u64, length: u64) {
        let end = self.with(|image| image.now.len() as u64).min(at + length);
        if at < end {
            self.change(Change::Write(at, vec![0; (end - at) as usize]));
        }
    }
}
