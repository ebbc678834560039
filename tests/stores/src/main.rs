//! What the candidates for a durable store cost, on the same work: commits of one page, of 64 scattered pages and of 16,384
//! consecutive ones, each made durable, in a region of 65,536 pages (256 MiB); then random reads, and opening it again.
//!
//! Owns: the three candidates in their smallest form. Called by: who wants to see docs/DESIGN.md's figures again, with
//! `cargo run --release [DIRECTORY]`. Must not: be part of the product.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use twox_hash::XxHash3_64;

const PAGE: usize = 4096;
const PAGES: u64 = 65_536;
type Page = [u8; PAGE];

trait Candidate {
    fn name(&self) -> &'static str;
    fn commit(&mut self, pages: &[(u64, Page)]);
    fn read(&mut self, page: u64) -> Page;
    fn reopen(self: Box<Self>) -> Box<dyn Candidate>;
}

/// Values of 4,096 bytes in redb.
struct Plain(PathBuf, Database);
const VALUES: TableDefinition<u64, &[u8]> = TableDefinition::new("pages");

impl Candidate for Plain {
    fn name(&self) -> &'static str {
        "redb, pages as values"
    }
    fn commit(&mut self, pages: &[(u64, Page)]) {
        let write = self.1.begin_write().unwrap();
        {
            let mut table = write.open_table(VALUES).unwrap();
            for (page, bytes) in pages {
                table.insert(page, &bytes[..]).unwrap();
            }
        }
        write.commit().unwrap();
    }
    fn read(&mut self, page: u64) -> Page {
        let read = self.1.begin_read().unwrap();
        let table = read.open_table(VALUES).unwrap();
        table.get(page).unwrap().map_or([0; PAGE], |value| value.value().try_into().unwrap())
    }
    fn reopen(self: Box<Self>) -> Box<dyn Candidate> {
        let Plain(path, database) = *self;
        drop(database);
        let database = Database::open(&path).unwrap();
        Box::new(Plain(path, database))
    }
}

/// Pages in slots of one file, and where they are in redb, 64 pages an entry.
struct Slots {
    path: PathBuf,
    file: File,
    index: Database,
    free: Vec<u64>,
    end: u64,
}
const LEAVES: TableDefinition<u64, &[u8]> = TableDefinition::new("leaves");
const ENTRY: usize = 24;

impl Slots {
    fn open(path: &Path) -> Slots {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("pages")).unwrap();
        let index = Database::create(path.join("index")).unwrap();
        let write = index.begin_write().unwrap();
        let mut used = Vec::new();
        {
            let table = write.open_table(LEAVES).unwrap();
            for leaf in table.iter().unwrap() {
                for entry in leaf.unwrap().1.value().chunks(ENTRY) {
                    let slot = u64::from_le_bytes(entry[..8].try_into().unwrap());
                    used.resize(used.len().max(slot as usize + 1), false);
                    used[slot as usize] = true;
                }
            }
        }
        write.commit().unwrap();
        let free = (1..used.len() as u64).filter(|slot| !used[*slot as usize]).collect();
        Slots { path: path.into(), file, index, free, end: (used.len() as u64).max(1) }
    }
}

impl Candidate for Slots {
    fn name(&self) -> &'static str {
        "slots of a file, redb index"
    }
    fn commit(&mut self, pages: &[(u64, Page)]) {
        let mut placed = Vec::new();
        for (page, bytes) in pages {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.end += 1;
                self.end - 1
            });
            self.file.write_all_at(bytes, slot * PAGE as u64).unwrap();
            placed.push((*page, slot, XxHash3_64::oneshot(bytes)));
        }
        self.file.sync_data().unwrap();
        let write = self.index.begin_write().unwrap();
        let mut gone = Vec::new();
        {
            let mut table = write.open_table(LEAVES).unwrap();
            for group in placed.chunk_by(|one, next| one.0 / 64 == next.0 / 64) {
                let leaf = group[0].0 / 64;
                let mut entries = table.get(leaf).unwrap().map_or(vec![0; 64 * ENTRY], |value| value.value().to_vec());
                for (page, slot, sum) in group {
                    let entry = &mut entries[(page % 64) as usize * ENTRY..][..ENTRY];
                    let old = u64::from_le_bytes(entry[..8].try_into().unwrap());
                    gone.extend((old != 0).then_some(old));
                    entry[..8].copy_from_slice(&slot.to_le_bytes());
                    entry[8..16].copy_from_slice(&sum.to_le_bytes());
                }
                table.insert(leaf, &entries[..]).unwrap();
            }
        }
        write.commit().unwrap();
        self.free.extend(gone);
    }
    fn read(&mut self, page: u64) -> Page {
        let read = self.index.begin_read().unwrap();
        let table = read.open_table(LEAVES).unwrap();
        let mut bytes = [0; PAGE];
        if let Some(leaf) = table.get(page / 64).unwrap() {
            let entry = &leaf.value()[(page % 64) as usize * ENTRY..][..ENTRY];
            let slot = u64::from_le_bytes(entry[..8].try_into().unwrap());
            if slot != 0 {
                self.file.read_exact_at(&mut bytes, slot * PAGE as u64).unwrap();
                assert_eq!(XxHash3_64::oneshot(&bytes).to_le_bytes(), entry[8..16]);
            }
        }
        bytes
    }
    fn reopen(self: Box<Self>) -> Box<dyn Candidate> {
        let path = self.path.clone();
        drop(self);
        Box::new(Slots::open(&path))
    }
}

/// fjall with keys and values separated.
struct Fjall(PathBuf, fjall::Database, fjall::Keyspace);

impl Fjall {
    fn open(path: &Path) -> Fjall {
        let database = fjall::Database::builder(path).open().unwrap();
        let options = || fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(fjall::KvSeparationOptions::default()));
        let pages = database.keyspace("pages", options).unwrap();
        Fjall(path.into(), database, pages)
    }
}

impl Candidate for Fjall {
    fn name(&self) -> &'static str {
        "fjall, keys and values apart"
    }
    fn commit(&mut self, pages: &[(u64, Page)]) {
        let mut batch = self.1.batch().durability(Some(fjall::PersistMode::SyncData));
        for (page, bytes) in pages {
            batch.insert(&self.2, page.to_be_bytes(), &bytes[..]);
        }
        batch.commit().unwrap();
    }
    fn read(&mut self, page: u64) -> Page {
        self.2.get(page.to_be_bytes()).unwrap().map_or([0; PAGE], |value| value[..].try_into().unwrap())
    }
    fn reopen(self: Box<Self>) -> Box<dyn Candidate> {
        let Fjall(path, database, pages) = *self;
        drop((database, pages));
        Box::new(Fjall::open(&path))
    }
}

fn size_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let here = fs::symlink_metadata(path).unwrap();
    if here.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| size_of(&entry.unwrap().path())).sum();
    }
    here.blocks() * 512
}

/// Bytes that this process had the file systems write (`write_bytes` of /proc/self/io: what reaches the block layer).
fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find(|line| line.starts_with("write_bytes")).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

struct Dice(u64);
impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn page(&mut self) -> Page {
        let mut page = [0; PAGE];
        for word in page.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        page
    }
}

fn measure(mut store: Box<dyn Candidate>, path: &Path) {
    let mut dice = Dice(7117);
    let name = store.name();
    for first in (0..PAGES).step_by(16_384) {
        let pages: Vec<_> = (first..first + 16_384).map(|page| (page, dice.page())).collect();
        let (bytes, start) = (written(), Instant::now());
        store.commit(&pages);
        if first + 16_384 == PAGES {
            let rate = pages.len() as f64 * PAGE as f64 / 1e6 / start.elapsed().as_secs_f64();
            let times = (written() - bytes) as f64 / (pages.len() * PAGE) as f64;
            println!("{name}: 64 MiB at once: {rate:.0} MB/s, {times:.2} x the bytes");
        }
    }
    println!("{name}: filled once: {:.2} x the bytes on disk", size_of(path) as f64 / (PAGES as f64 * PAGE as f64));
    for (count, rounds) in [(1, 3000), (64, 1000)] {
        let (bytes, start) = (written(), Instant::now());
        for _ in 0..rounds {
            let mut pages: Vec<_> = (0..count).map(|_| (dice.next() % PAGES, dice.page())).collect();
            pages.sort_by_key(|page| page.0);
            pages.dedup_by_key(|page| page.0);
            store.commit(&pages);
        }
        let rate = rounds as f64 / start.elapsed().as_secs_f64();
        let each = (written() - bytes) as f64 / (rounds * count) as f64 / PAGE as f64;
        println!("{name}: commits of {count} scattered: {rate:.0} a second, {each:.1} pages written for one");
    }
    println!("{name}: after that: {:.2} x the bytes on disk", size_of(path) as f64 / (PAGES as f64 * PAGE as f64));
    let start = Instant::now();
    let mut any = 0;
    for _ in 0..100_000 {
        any |= store.read(dice.next() % PAGES)[0];
    }
    println!("{name}: random reads: {:.0} a second ({any})", 1e5 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    let mut store = store.reopen();
    any |= store.read(0)[0];
    println!("{name}: opened again in {:.1} ms ({any})", start.elapsed().as_secs_f64() * 1e3);
}

fn main() {
    let top = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/stores".into()));
    let only = std::env::args().nth(2);
    let _ = fs::remove_dir_all(&top);
    for which in ["plain", "slots", "fjall"] {
        if only.as_deref().is_some_and(|only| only != which) {
            continue;
        }
        let path = top.join(which);
        fs::create_dir_all(&path).unwrap();
        let store: Box<dyn Candidate> = match which {
            "plain" => {
                let file = path.join("redb");
                let database = Database::create(&file).unwrap();
                Box::new(Plain(file, database))
            }
            "slots" => Box::new(Slots::open(&path)),
            _ => Box::new(Fjall::open(&path)),
        };
        measure(store, &path);
    }
}
