//! The kinds of frame, their numbers, and which body belongs to which.
//!
//! Owns: the list of kinds. Called by: codec, both peers. Must not: interpret bodies.

/// What a frame is. Requests have even numbers below 0x8000; the answer to request `k` is `k | 0x8000`, or
/// [`Kind::Error`]. `Stage` and `StageFrom` have no answers of their own: the `Commit` that follows reports for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Nothing; answered at once. Body: empty.
    Ping = 0x0002,
    /// Opens, and if asked creates, a named region. Body: [`crate::control::Open`]; answer [`crate::control::Entry`].
    Open = 0x0010,
    /// Opens a region by its number (a forked child, an inherited descriptor). Header: region. Answer [`crate::control::Entry`].
    OpenId = 0x0012,
    /// Creates a region without a name, which ends with its last holder. Body: [`crate::control::CreateUnnamed`]; answer [`crate::control::Entry`].
    CreateUnnamed = 0x0014,
    /// Gives up a hold taken by one of the three above, or by `CloneUnnamed`. Header: region. Answer: empty.
    Close = 0x0016,
    /// Looks a name up, holding nothing. Body: [`crate::control::Lookup`]; answer [`crate::control::Entry`].
    Lookup = 0x0018,
    /// Lists a directory. Body: [`crate::control::List`]; answer [`crate::control::Listing`].
    List = 0x001a,
    /// Removes a name. Body: [`crate::control::Remove`]; answer: empty.
    Remove = 0x001c,
    /// Renames a region or directory. Body: [`crate::control::Rename`]; answer: empty.
    Rename = 0x001e,
    /// Makes a directory. Body: [`crate::control::MakeDir`]; answer [`crate::control::Entry`].
    MakeDir = 0x0020,
    /// Sets permission bits or times. Body: [`crate::control::SetAttr`]; answer [`crate::control::Entry`].
    SetAttr = 0x0022,
    /// Sets a region's size as a commit of its own. Header: region. Body: [`crate::control::Resize`]; answer [`crate::control::Committed`].
    Resize = 0x0024,
    /// What the server is and holds. Answer [`crate::control::ServerStat`].
    ServerStat = 0x0026,
    /// Where a path leads, with its symbolic links followed. Body: [`crate::control::Resolve`]; answer [`crate::control::Resolved`].
    Resolve = 0x0028,
    /// Makes a symbolic link. Body: [`crate::control::MakeSymlink`]; answer [`crate::control::Entry`].
    MakeSymlink = 0x002a,
    /// Gives a region a further name. Body: [`crate::control::Link`]; answer [`crate::control::Entry`].
    Link = 0x002c,
    /// All names of a region. Header: region. Answer [`crate::control::Names`].
    Names = 0x002e,
    /// Takes holds on what another client holds: a forked child on what its parent does. Body: [`crate::control::Inherit`]; answer: empty.
    Inherit = 0x0030,
    /// What the server is doing. Answer [`crate::activity::ServerActivity`].
    ServerActivity = 0x0032,
    /// What was served of each region. Body: [`crate::activity::RegionsAfter`]; answer [`crate::activity::RegionActivities`].
    RegionActivity = 0x0034,
    /// What each client was served. Body: [`crate::activity::ClientsAfter`]; answer [`crate::activity::ClientActivities`].
    ClientActivity = 0x0036,
    /// After a restart of the server: holds that the client had before. Body: [`crate::control::Reclaim`]; answer: empty.
    Reclaim = 0x0038,
    /// Reads stored pages back and compares their checksums, some at a time. Body: [`crate::control::ScrubAfter`]; answer
    /// [`crate::control::Scrubbed`].
    Scrub = 0x003a,
    /// Keeps the newest epoch of a region under a name. Body: [`crate::control::Snapshot`]; answer [`crate::control::Snapshotted`].
    Snapshot = 0x003c,
    /// Gives a snapshot up. Body: [`crate::control::Snapshot`]; answer: empty.
    RemoveSnapshot = 0x003e,
    /// Makes a region that begins as another is, or as one of its snapshots. Body: [`crate::control::CloneRegion`]; answer
    /// [`crate::control::Entry`].
    Clone = 0x0050,
    /// Makes a region without a name that begins as another is, which it outlives, and which ends with its last holder. Header: region, the
    /// other's, in the answer too. Answer [`crate::control::Entry`] of the new one.
    CloneUnnamed = 0x0054,
    /// The region without a name in which the asking cache keeps what is pending of another one. Header: the one it had before a restart of the
    /// server, or 0. Body: [`crate::control::Keep`]; answer [`crate::control::Entry`].
    Keep = 0x0056,
    /// The last commits of a region, and its snapshots. Body: [`crate::control::Lookup`]; answer [`crate::control::History`].
    History = 0x0052,
    /// Pages at an epoch. Header: region, epoch. Body: runs ([`crate::pages`]); answer: a page body.
    Fetch = 0x0040,
    /// Pages for a commit that is to come. Header: region. Body: a page body that names the commit. No answer.
    Stage = 0x0042,
    /// Pages for a commit that is to come, as the newest epoch of another region has them. Header: region. Body: [`crate::control::StageFrom`]. No
    /// answer.
    StageFrom = 0x004e,
    /// Makes everything staged under a commit visible. Header: region. Body: [`crate::control::Commit`]; answer [`crate::control::Committed`].
    Commit = 0x0044,
    /// Whether a commit whose answer was lost has happened. Header: region. Body: [`crate::control::CommitStatus`]; answer
    /// [`crate::control::Committed`] or NotFound.
    CommitStatus = 0x0046,
    /// The same for several regions at once: all of it happens, or nothing. Body: [`crate::control::CommitTogether`]; answer
    /// [`crate::control::CommittedTogether`].
    CommitTogether = 0x004c,
    /// What changed after an epoch. Header: region, epoch. Answer [`crate::control::Changes`]. The epoch named in the answer, and
    /// the one asked from, stay readable for this cache until `View`.
    Changes = 0x0048,
    /// This cache has moved to an epoch; older ones need not be kept for it. Header: region, epoch. Answer: empty.
    View = 0x004a,
    /// The answer to any request that failed. Body: [`crate::control::ErrorBody`].
    Error = 0xffff,
}

/// Set in `Kind` numbers of answers.
pub const ANSWER: u16 = 0x8000;

impl Kind {
    /// All kinds of request, for tests and tables.
    pub const REQUESTS: [Kind; 37] = [
        Kind::Ping,
        Kind::Open,
        Kind::OpenId,
        Kind::CreateUnnamed,
        Kind::Close,
        Kind::Lookup,
        Kind::List,
        Kind::Remove,
        Kind::Rename,
        Kind::MakeDir,
        Kind::SetAttr,
        Kind::Resize,
        Kind::ServerStat,
        Kind::Resolve,
        Kind::MakeSymlink,
        Kind::Link,
        Kind::Names,
        Kind::Inherit,
        Kind::Reclaim,
        Kind::Scrub,
        Kind::Snapshot,
        Kind::RemoveSnapshot,
        Kind::Clone,
        Kind::CloneUnnamed,
        Kind::Keep,
        Kind::History,
        Kind::Fetch,
        Kind::Stage,
        Kind::StageFrom,
        Kind::Commit,
        Kind::CommitStatus,
        Kind::CommitTogether,
        Kind::Changes,
        Kind::View,
        Kind::ServerActivity,
        Kind::RegionActivity,
        Kind::ClientActivity,
    ];

    /// The request with this number on the wire.
    pub fn from_request(number: u16) -> Option<Kind> {
        Kind::REQUESTS.into_iter().find(|kind| *kind as u16 == number)
    }

    /// The number of the answer to this request.
    pub const fn answer(self) -> u16 {
        self as u16 | ANSWER
    }
}
