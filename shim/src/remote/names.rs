//! The requests about names, regions and the server itself, typed.
//!
//! Owns: which of them may be sent again, and what a second answer means. Called by: the namespace operations of the shim.
//! Must not: talk to a connection itself.
//!
//! A request that can be repeated without harm is repeated until its deadline. The others are repeated once if the
//! connection broke when the server may have had all of the request, and the second answer is read with that in mind:
//!
//! | request | second answer | taken as |
//! |---|---|---|
//! | remove | NotFound | done |
//! | rename | NotFound, or Exists where `from` is gone | done |
//! | rename with `exchange` | never repeated: a second exchange would undo the first | `Lost` |
//! | make_dir | Exists | done, if it is a directory |
//! | open with `Create::Exclusive` | Exists | done: opened, `created` |
//! | make_symlink | Exists | done, if it is a link that says the same |
//! | link | Exists | done, if both names are one region's |
//! | close | never repeated: a second one would give up another hold | done; at worst a hold is left, until the process ends |
//!
//! Where someone else removed or made the same name between the two, they are told what we should have been told; the name is
//! in the state that was asked for. A repeated `keep` is the same. A repeated `open_id`, `create_unnamed` or `clone_unnamed` can leave a hold, and a region, that goes with the process.

use netmem_protocol::control::{
    Changes, ChangesUntil, CommitStatus, Committed, Create, CreateUnnamed, Entry, EntryKind, Keep, Link,
    List, Listing, Lookup, MakeDir, MakeSymlink, Names, Open, Remove, Rename, Resize, Resolve, Resolved,
    ServerStat, SetAttr,
};
use netmem_protocol::{CommitId, Epoch, ErrorCode, Kind, ProtocolError, RegionId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checks;
use super::client::{Remote, Replay};
use super::error::RemoteError;

impl Remote {
    /// Whether the server is there.
    pub fn ping(&self) -> Result<(), RemoteError> {
        self.ask(Kind::Ping, RegionId(0), &())
    }

    /// Opens, and if asked creates, a named region, and holds it.
    pub fn open(&self, name: &str, create: Create, mode: u32) -> Result<Entry, RemoteError> {
        let open = Open { name: name.to_owned(), create, mode };
        if create != Create::Exclusive {
            return self.held(self.ask(Kind::Open, RegionId(0), &open));
        }
        let (answer, replayed) = self.ask_once(Kind::Open, &open, Replay::Once);
        if replayed && code_of(&answer) == Some(ErrorCode::Exists) {
            let entry = self.open(name, Create::Never, mode)?;
            return Ok(Entry { created: true, ..entry });
        }
        self.held(answer)
    }

    /// Opens a region by its number, and holds it.
    pub fn open_id(&self, region: RegionId) -> Result<Entry, RemoteError> {
        self.held(self.ask(Kind::OpenId, region, &()))
    }

    /// Creates a region without a name, and holds it.
    pub fn create_unnamed(&self, size: u64) -> Result<Entry, RemoteError> {
        self.held(self.ask(Kind::CreateUnnamed, RegionId(0), &CreateUnnamed { size }))
    }

    /// Creates a region without a name that begins as this one is, and holds it. It outlives this one.
    pub fn clone_unnamed(&self, region: RegionId) -> Result<Entry, RemoteError> {
        let answer = self.ask(Kind::CloneUnnamed, region, &());
        self.held(self.checked(answer, |entry| checks::clone(entry, region)))
    }

    /// The region in which the server keeps what is pending of another one: `known`, or if that is 0 the one that it says.
    pub fn keep(&self, of: RegionId, known: RegionId) -> Result<(RegionId, Epoch), RemoteError> {
        let answer = self.ask(Kind::Keep, known, &Keep { of });
        let entry = self.checked(answer, |entry| checks::kept(entry, of))?;
        self.notes_pending(of, entry.region);
        Ok((entry.region, entry.epoch))
    }

    fn held(&self, answer: Result<Entry, RemoteError>) -> Result<Entry, RemoteError> {
        let entry = self.checked(answer, checks::region)?;
        self.holds(entry.region);
        Ok(entry)
    }

    /// Gives up one hold.
    pub fn close(&self, region: RegionId) -> Result<(), RemoteError> {
        self.holds_no_more(region);
        match self.ask_at(Kind::Close, region, Epoch(0), &(), Replay::Never).0 {
            Err(RemoteError::Lost { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Looks a name up; the empty one is the root directory.
    pub fn lookup(&self, name: &str) -> Result<Entry, RemoteError> {
        self.checked(self.ask(Kind::Lookup, RegionId(0), &Lookup { name: name.to_owned() }), checks::entry)
    }

    /// One part of a directory, from behind `after`.
    pub fn list(&self, directory: &str, after: &str) -> Result<Listing, RemoteError> {
        let list = List { directory: directory.to_owned(), after: after.to_owned() };
        self.checked(self.ask(Kind::List, RegionId(0), &list), |part| checks::listing(part, after))
    }

    /// Removes a region's name, or an empty directory.
    pub fn remove(&self, name: &str, directory: bool) -> Result<(), RemoteError> {
        let remove = Remove { name: name.to_owned(), directory };
        let (answer, replayed) = self.ask_once(Kind::Remove, &remove, Replay::Once);
        if replayed && code_of(&answer) == Some(ErrorCode::NotFound) {
            return Ok(());
        }
        answer
    }

    /// Renames as rename(2) does.
    pub fn rename(&self, rename: &Rename) -> Result<(), RemoteError> {
        let replay = if rename.exchange { Replay::Never } else { Replay::Once };
        let (answer, replayed) = self.ask_once(Kind::Rename, rename, replay);
        if !replayed {
            return answer;
        }
        let done = match code_of(&answer) {
            Some(ErrorCode::NotFound) => true,
            Some(ErrorCode::Exists) => code_of(&self.lookup(&rename.from)) == Some(ErrorCode::NotFound),
            Some(_) | None => false,
        };
        if done { Ok(()) } else { answer }
    }

    /// Makes a directory.
    pub fn make_dir(&self, name: &str, mode: u32) -> Result<Entry, RemoteError> {
        let make = MakeDir { name: name.to_owned(), mode };
        let (answer, replayed) = self.ask_once(Kind::MakeDir, &make, Replay::Once);
        let answer = self.checked(answer, checks::entry);
        if replayed && code_of(&answer) == Some(ErrorCode::Exists) {
            let entry = self.lookup(name)?;
            if entry.kind == EntryKind::Directory {
                return Ok(Entry { created: true, ..entry });
            }
        }
        answer
    }

    /// Makes a symbolic link.
    pub fn make_symlink(&self, name: &str, target: &[u8]) -> Result<Entry, RemoteError> {
        let make = MakeSymlink { name: name.to_owned(), target: target.to_vec() };
        let (answer, replayed) = self.ask_once(Kind::MakeSymlink, &make, Replay::Once);
        let answer = self.checked(answer, checks::entry);
        if replayed && code_of(&answer) == Some(ErrorCode::Exists) {
            let entry = self.lookup(name)?;
            if entry.target == target {
                return Ok(Entry { created: true, ..entry });
            }
        }
        answer
    }

    /// Gives the region that is called `from` a further name.
    pub fn link(&self, from: &str, to: &str) -> Result<Entry, RemoteError> {
        let link = Link { from: from.to_owned(), to: to.to_owned() };
        let (answer, replayed) = self.ask_once(Kind::Link, &link, Replay::Once);
        let answer = self.checked(answer, checks::entry);
        if replayed && code_of(&answer) == Some(ErrorCode::Exists) {
            let entry = self.lookup(to)?;
            if entry.region == self.lookup(from)?.region {
                return Ok(Entry { created: true, ..entry });
            }
        }
        answer
    }

    /// All names of a region.
    pub fn names(&self, region: RegionId) -> Result<Vec<String>, RemoteError> {
        let names = self.ask(Kind::Names, region, &()).map(|names: Names| names.names);
        self.checked(names, |names| checks::names(names))
    }

    /// Where a path leads, with its symbolic links followed.
    pub fn resolve(&self, resolve: &Resolve) -> Result<Resolved, RemoteError> {
        let resolved = self.ask(Kind::Resolve, RegionId(0), resolve);
        self.checked(resolved, |resolved| checks::resolved(resolved, resolve))
    }

    /// Sets permission bits or times of a name.
    pub fn set_attr(
        &self,
        name: &str,
        mode: Option<u32>,
        modified_ns: Option<u64>,
    ) -> Result<Entry, RemoteError> {
        let set = SetAttr { name: name.to_owned(), mode, modified_ns };
        self.checked(self.ask(Kind::SetAttr, RegionId(0), &set), checks::entry)
    }

    /// Sets a region's size, as a commit of its own.
    pub fn resize(&self, region: RegionId, size: u64) -> Result<Committed, RemoteError> {
        self.checked(self.ask(Kind::Resize, region, &Resize { size }), checks::committed)
    }

    /// What the server is and holds.
    pub fn server_stat(&self) -> Result<ServerStat, RemoteError> {
        self.ask(Kind::ServerStat, RegionId(0), &())
    }

    /// What changed after an epoch, until another; 0: the newest.
    pub fn changes(&self, region: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        let changes = self.ask_at(Kind::Changes, region, epoch, &ChangesUntil { until }, Replay::Freely).0;
        self.checked(changes, |changes: &Changes| changes.check(epoch, until))
    }

    /// Older epochs are no longer needed by this cache.
    pub fn view(&self, region: RegionId, epoch: Epoch) -> Result<(), RemoteError> {
        self.ask_at(Kind::View, region, epoch, &(), Replay::Freely).0
    }

    /// What became of a commit whose answer was lost; NotFound if nothing.
    pub fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError> {
        self.checked(self.ask(Kind::CommitStatus, region, &CommitStatus { commit }), checks::committed)
    }

    /// An answer, if it can be one.
    fn checked<T>(
        &self,
        answer: Result<T, RemoteError>,
        check: impl FnOnce(&T) -> Result<(), ProtocolError>,
    ) -> Result<T, RemoteError> {
        let value = answer?;
        match check(&value) {
            Ok(()) => Ok(value),
            Err(error) => Err(RemoteError::Protocol { server: self.server_name(), error }),
        }
    }

    fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        kind: Kind,
        region: RegionId,
        body: &B,
    ) -> Result<T, RemoteError> {
        self.ask_at(kind, region, Epoch(0), body, Replay::Freely).0
    }

    fn ask_once<B: Serialize, T: DeserializeOwned>(
        &self,
        kind: Kind,
        body: &B,
        replay: Replay,
    ) -> (Result<T, RemoteError>, bool) {
        self.ask_at(kind, RegionId(0), Epoch(0), body, replay)
    }
}

fn code_of<T>(answer: &Result<T, RemoteError>) -> Option<ErrorCode> {
    answer.as_ref().err().and_then(RemoteError::code)
}
