//! The bodies of control messages: serde types, bincode on the wire.
//!
//! Owns: what a control request says. Called by: both peers. Must not: know about sockets.

use serde::{Deserialize, Serialize};

use crate::error::ProtocolError;
use crate::ids::{ClientId, CommitId, Epoch, RegionId, Run};
use crate::pages::PAGE_INDEX_END;
use crate::{CHANGES_RUNS_MAX, REGION_BYTES_MAX};

pub use crate::pending::{Keep, StageFrom};

/// Opens a named region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The name, as [`crate::RegionName`] allows it.
    pub name: String,
    /// What to do if there is none.
    pub create: Create,
    /// Permission bits of a region that is created, 0 to 0o7777.
    pub mode: u32,
}

/// What `Open` does about a name that is missing, or there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Create {
    /// A missing name is NotFound.
    Never,
    /// A missing name is created, in a directory that exists.
    IfMissing,
    /// A name that is there is Exists.
    Exclusive,
}

/// Creates a region without a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateUnnamed {
    /// Bytes.
    pub size: u64,
}

/// Names a snapshot of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The region's name.
    pub name: String,
    /// The snapshot's: a component of a name, without `@`, and no number.
    pub snapshot: String,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshotted {
    /// Its name.
    pub snapshot: String,
    /// The epoch that it keeps.
    pub epoch: Epoch,
    /// Nanoseconds since 1970 at which it was made.
    pub made_ns: u64,
    /// Bytes of the region.
    pub size: u64,
    /// Pages that are not all zeros.
    pub stored_pages: u64,
}

/// Makes a region out of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneRegion {
    /// A region, or with `@` and a snapshot or an epoch behind its name, what it was.
    pub from: String,
    /// The name of the new one, which is free.
    pub to: String,
}

/// A commit that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// The epoch that it made.
    pub epoch: Epoch,
    /// Nanoseconds since 1970.
    pub when_ns: u64,
    /// Pages that it changed, of those that have content or had it.
    pub pages: u64,
    /// Bytes of the region after it.
    pub size: u64,
    /// Whether the epoch can be read still.
    pub kept: bool,
}

/// What a region was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its last commits, the newest last.
    pub log: Vec<Logged>,
    /// Its snapshots, by name.
    pub snapshots: Vec<Snapshotted>,
}

/// Where a scrub goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubAfter {
    /// A region.
    pub region: RegionId,
    /// The first of its pages that was not looked at yet.
    pub page: u64,
}

/// A page whose bytes are not those that were stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its region.
    pub region: RegionId,
    /// One of the region's names; empty if it has none.
    pub name: String,
    /// Which page.
    pub page: u64,
    /// What was found, for people.
    pub text: String,
}

/// What a part of a scrub found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Pages that were read.
    pub pages: u64,
    /// Those that are damaged.
    pub damaged: Vec<Damage>,
    /// Where it goes on; `None` at the end.
    pub next: Option<ScrubAfter>,
}

/// Says what the client holds, to a server that was restarted since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// Regions, and how many holds of each. Those that are not there any more are left out.
    pub holds: Vec<(RegionId, u32)>,
}

/// Takes what another client holds, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherit {
    /// The other client; one that is gone holds nothing.
    pub parent: ClientId,
    /// Of what it holds, what the asking client does too: one hold of each.
    pub regions: Vec<RegionId>,
}

/// Looks a name up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name; empty for the root directory.
    pub name: String,
}

/// What a name, or a region's number, stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A region.
    Region,
    /// A directory. Its region number is 0, its size 0, its epoch 0.
    Directory,
    /// A symbolic link. Its region number is 0, its size that of its target, its epoch 0.
    Symlink,
    /// A region as it was, under the name `region@snapshot` or `region@epoch`. It never changes.
    Snapshot,
}

impl EntryKind {
    /// Whether it has pages, and a region's number.
    pub const fn has_pages(self) -> bool {
        match self {
            EntryKind::Region | EntryKind::Snapshot => true,
            EntryKind::Directory | EntryKind::Symlink => false,
        }
    }
}

/// A region, a directory or a symbolic link as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which of the four.
    pub kind: EntryKind,
    /// The region's number.
    pub region: RegionId,
    /// Bytes, at `epoch`.
    pub size: u64,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Nanoseconds since 1970 of the last change of content.
    pub modified_ns: u64,
    /// Pages that are stored, all-zero ones not counted.
    pub stored_pages: u64,
    /// Whether the open created it.
    pub created: bool,
    /// Names of the region; 1 for what is none.
    pub links: u32,
    /// What a symbolic link says, 1 to [`crate::TARGET_BYTES_MAX`] bytes without NUL; empty for what is none.
    pub target: Vec<u8>,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeSymlink {
    /// The name; its parent must be there.
    pub name: String,
    /// What it says.
    pub target: Vec<u8>,
}

/// Gives a region a further name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// A name that it has.
    pub from: String,
    /// The new one.
    pub to: String,
}

/// Asks for all names of the region in the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// At most [`crate::LINKS_MAX`], in byte order.
    pub names: Vec<String>,
}

/// Asks where a path leads, with its symbolic links followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The directory where the path starts.
    pub base: String,
    /// The path as it was given, with its `.`, `..` and slashes; never absolute.
    pub path: String,
    /// Follow its last component, too.
    pub follow: bool,
    /// Symbolic links that were followed on the way here.
    pub links: u32,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Whether there is something.
    pub reached: Reached,
    /// Its name, or the one that is free. Empty for the root directory, and outside.
    pub name: String,
    /// Whether it must be a directory, since the path, or the last link in it, ends with a slash.
    pub slash: bool,
    /// Symbolic links that were followed, those before included.
    pub links: u32,
    /// The path outside: absolute, or one that starts with `..` and is meant from the root directory.
    pub outside: Vec<u8>,
}

/// What is where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reached {
    /// Something, of whatever kind.
    There,
    /// Nothing, in a directory that is there.
    Missing,
    /// It leads out of the namespace: only the client knows what is there.
    Outside,
}

/// Lists a directory, names in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory; empty for the root.
    pub directory: String,
    /// Start behind this component; empty: from the start.
    pub after: String,
}

/// One part of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Last component and entry of each, at most [`crate::LIST_ENTRIES_MAX`], and fewer where targets are long.
    pub entries: Vec<(String, Entry)>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

/// Removes a name. A region that clients hold lives on without it until the last of them is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The name.
    pub name: String,
    /// Remove a directory (NotEmpty unless it is empty) rather than a region.
    pub directory: bool,
}

/// Renames as rename(2) does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The old name.
    pub from: String,
    /// The new name.
    pub to: String,
    /// Exists if `to` is there (RENAME_NOREPLACE).
    pub no_replace: bool,
    /// Exchange the two (RENAME_EXCHANGE).
    pub exchange: bool,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDir {
    /// The name; its parent must be there.
    pub name: String,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
}

/// Sets attributes of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// The name.
    pub name: String,
    /// New permission bits.
    pub mode: Option<u32>,
    /// New modification time, nanoseconds since 1970.
    pub modified_ns: Option<u64>,
}

/// Sets a region's size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Bytes.
    pub size: u64,
}

/// Makes what was staged visible, all at once.
///
/// The server applies, in this order: cut everything at and behind `cut` (pages wholly behind it go, the rest of the
/// page that holds it becomes zeros), the staged pages, the new size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The commit, as named in its stages.
    pub commit: CommitId,
    /// How many pages were staged under it, zero pages counted: a lost stage is Malformed, never half a commit.
    pub staged_pages: u64,
    /// The epoch the client's pages were based on.
    pub base: Epoch,
    /// Another host's change to one of these pages since `base` is Stale instead of merged.
    pub strict: bool,
    /// The smallest size in bytes the region had since the last commit, if it shrank.
    pub cut: Option<u64>,
    /// The region's size in bytes from now on; None leaves it as it is (grown, if staged pages lie behind it).
    pub size: Option<u64>,
}

/// A commit that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch before it: if that is not the commit's base, others have committed in between.
    pub previous: Epoch,
    /// Bytes in the region now.
    pub size: u64,
}

/// Commits of several regions that are one: each part has the same [`CommitId`], under which its pages were staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitTogether {
    /// 1 to [`crate::COMMIT_REGIONS_MAX`] regions and what each is to become, in the order of the regions' numbers, each once.
    pub parts: Vec<(RegionId, Commit)>,
}

impl CommitTogether {
    /// Their common number, after a look at number and order of the parts.
    pub fn check(&self) -> Result<CommitId, ProtocolError> {
        let ordered =
            self.parts.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1.commit == two[1].1.commit);
        match self.parts.first() {
            Some((_, first)) if ordered && self.parts.len() <= crate::COMMIT_REGIONS_MAX => Ok(first.commit),
            _ => Err(ProtocolError::Malformed { what: "CommitTogether" }),
        }
    }
}

/// Commits that happened together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedTogether {
    /// One for each part, in their order.
    pub parts: Vec<Committed>,
}

/// Asks after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    /// The commit.
    pub commit: CommitId,
}

/// Asks what changed between the epoch in the header and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesUntil {
    /// The later one; 0: the newest.
    pub until: Epoch,
}

/// What changed after an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The epoch until which they are told.
    pub epoch: Epoch,
    /// Bytes in the region at that epoch.
    pub size: u64,
    /// Pages whose content may differ between the two, in order. A superset is allowed.
    pub runs: Vec<Run>,
    /// Whether the epoch asked from can still be fetched.
    pub base_kept: bool,
}

impl Changes {
    /// Whether a region can have changed so after `since`, asked until `until`: a receiver that walks the runs must not be led to walk
    /// them for ever, or backwards.
    pub fn check(&self, since: Epoch, until: Epoch) -> Result<(), ProtocolError> {
        let mut least = 0;
        let possible = self.runs.iter().all(|run| {
            let end = run.first.0.checked_add(u64::from(run.count)).filter(|end| *end <= PAGE_INDEX_END);
            let follows = run.count > 0 && run.first.0 >= least;
            least = end.unwrap_or(least);
            follows && end.is_some()
        });
        let asked_for = self.epoch >= since && (until.0 == 0 || self.epoch == until);
        if possible && asked_for && self.runs.len() <= CHANGES_RUNS_MAX && self.size <= REGION_BYTES_MAX {
            Ok(())
        } else {
            Err(ProtocolError::Malformed { what: "changes: none that a region can have" })
        }
    }
}

/// What a server is and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStat {
    /// The server's version.
    pub version: String,
    /// The store: `memory`.
    pub store: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Regions, unnamed ones included.
    pub regions: u64,
    /// Connections now.
    pub connections: u64,
    /// Pages in the store.
    pub stored_pages: u64,
    /// The limit on `stored_pages`.
    pub pages_max: u64,
    /// Pages sent since the start, zero pages not counted.
    pub pages_sent: u64,
    /// Pages committed since the start.
    pub pages_committed: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Fetch requests since the start.
    pub fetches: u64,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// An [`crate::ErrorCode`] as a number, so that a newer server's code is not a decoding error.
    pub code: u16,
    /// One line: the thing, and what to do.
    pub text: String,
}
