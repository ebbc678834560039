//! The host's page cache: the runtime of this process, its regions, and the names under the prefix.
//!
//! Owns: [`Runtime`], made at the first use, and [`Handle`], one for each region that the process is attached to. Called by:
//! abi; the engines look handles up by number. Must not: do anything before the first use.

pub mod attach;
pub mod budget;
pub mod cache_file;
pub mod closing;
pub mod cwd;
pub mod directory;
pub mod fds;
pub mod fork;
pub mod handle;
pub mod hold;
pub mod locked;
pub mod names;
pub mod paths;
pub mod poison;
pub mod report;
pub mod room;
mod slots;
pub mod times;
pub mod tree;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use netmem_protocol::ClientId;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::mappings::Mappings;
use crate::log;
use crate::remote::Remote;
use crate::sync::QuietMutex;
use crate::sys::errno::Errno;
use attach::Attached;
use budget::Budget;
use directory::HostDirectory;
pub use handle::{Handle, handle};
pub use poison::fail_page;

/// Everything this process has once it used netmem.
pub struct Runtime {
    /// The settings.
    pub config: &'static Config,
    /// The server.
    pub remote: Remote,
    /// Every mapping of ours.
    pub mappings: Mappings,
    /// The host's files.
    pub directory: HostDirectory,
    /// Taken around changes of names, before the host-wide lock. Lock order: 1.
    pub names: QuietMutex<()>,
    /// The regions.
    pub attached: Attached,
    /// What the page caches may take.
    pub budget: Budget,
    /// Whether the engine has its thread or handler.
    pub engine_started: AtomicBool,
    /// Replaced only in a forked child, by its only thread.
    engine: UnsafeCell<Engine>,
}

// SAFETY: all fields are Sync but the engine's cell, which is only written by `restart_engine`, in a child with one thread.
unsafe impl Sync for Runtime {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Runtime {}

impl Runtime {
    /// The engine.
    pub fn engine(&self) -> &Engine {
        // SAFETY: written only while there is one thread, see above.
        unsafe { &*self.engine.get() }
    }

    /// Bytes the server allows in a region.
    pub fn region_bytes_max(&self) -> u64 {
        self.remote.region_bytes_max()
    }

    /// In a forked child, before any other use.
    pub(super) fn restart_engine(&self) -> Result<(), Errno> {
        // SAFETY: the fork hook runs in the child's only thread, and no reference from `engine` is alive in it.
        unsafe { &mut *self.engine.get() }
            .restart_after_fork(self.config, self.engine_started.load(Ordering::Acquire))
    }
}

static CONFIG: AtomicPtr<Config> = AtomicPtr::new(core::ptr::null_mut());
static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(core::ptr::null_mut());
/// 1 once [`RUNTIME`] is there, to wait on.
static PUBLISHED: AtomicU32 = AtomicU32::new(0);
/// Lock order: 0.
pub(crate) static STARTING: QuietMutex<()> = QuietMutex::new(());

/// The settings, read at the first call.
pub fn config() -> &'static Config {
    let at = CONFIG.load(Ordering::Acquire);
    // SAFETY: the pointer is null or a leaked box that nobody changes.
    if let Some(config) = unsafe { at.as_ref() } {
        return config;
    }
    let fresh = Box::into_raw(Box::new(Config::from_environment()));
    match CONFIG.compare_exchange(core::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // SAFETY: just leaked.
            let config = unsafe { &*fresh };
            log::set_level(config.log);
            config
        }
        Err(theirs) => {
            // SAFETY: ours was never shown to anyone; theirs is a leaked box.
            unsafe {
                drop(Box::from_raw(fresh));
                &*theirs
            }
        }
    }
}

/// The runtime if this process has used netmem.
pub fn runtime_if_started() -> Option<&'static Runtime> {
    // SAFETY: null or a leaked box.
    unsafe { RUNTIME.load(Ordering::Acquire).as_ref() }
}

/// The runtime; the first call connects to the server and takes an engine. EINVAL for a setting that can't be read, EIO if
/// there is no server; the reason is on standard error, and the next call tries again.
pub fn runtime() -> Result<&'static Runtime, Errno> {
    if let Some(runtime) = runtime_if_started() {
        return Ok(runtime);
    }
    let _starting = STARTING.lock();
    if let Some(runtime) = runtime_if_started() {
        return Ok(runtime);
    }
    let runtime: &'static Runtime = Box::leak(Box::new(build()?));
    RUNTIME.store(core::ptr::from_ref(runtime).cast_mut(), Ordering::Release);
    PUBLISHED.store(1, Ordering::Release);
    crate::sys::futex::wake(&PUBLISHED, i32::MAX);
    Ok(runtime)
}

/// Starts the engine's thread or handler, before the first mapping.
pub fn start_engine(runtime: &'static Runtime) -> Result<(), Errno> {
    if !runtime.engine_started.load(Ordering::Acquire) {
        let _starting = STARTING.lock();
        if !runtime.engine_started.load(Ordering::Acquire) {
            hold::start(runtime)?;
            runtime.engine().start()?;
            runtime.engine_started.store(true, Ordering::Release);
        }
    }
    Ok(())
}

/// For the engine's thread, which may start before the runtime is published.
pub fn wait_for_runtime() -> Option<&'static Runtime> {
    while PUBLISHED.load(Ordering::Acquire) == 0 {
        crate::sys::futex::wait(&PUBLISHED, 0, None);
    }
    runtime_if_started()
}

fn build() -> Result<Runtime, Errno> {
    let config = config();
    let told = BUDGET_TOLD.load(Ordering::Relaxed);
    for (name, value, allowed) in config.errors.iter().filter(|error| !(told && error.0 == BUDGET)) {
        log::error!("{name}={value}: not understood; allowed is {allowed}");
    }
    if !config.errors.is_empty() {
        return Err(Errno(libc::EINVAL));
    }
    let root = directory::Root::open(config)?;
    let remote = Remote::new(config.into(), random_client()?, root.cache);
    let hello = remote.hello().map_err(|error| {
        log::error!("{error}");
        Errno(error.errno())
    })?;
    let directory = root.enter(hello.store, remote.server())?;
    crate::stats::start();
    if config.sites {
        crate::engine::sites::begin();
    }
    let engine = Engine::choose(config)?;
    crate::sys::alloc::keep_spare_room();
    let budget = Budget::open(&directory, config)?;
    Ok(Runtime {
        config,
        remote,
        mappings: Mappings::new()?,
        directory,
        names: QuietMutex::new(()),
        attached: Attached::new()?,
        budget,
        engine_started: AtomicBool::new(false),
        engine: UnsafeCell::new(engine),
    })
}

const BUDGET: &str = "NETMEM_MEMORY_BYTES";
/// Whether it was said that it can't be read.
static BUDGET_TOLD: AtomicBool = AtomicBool::new(false);

/// From now on NETMEM_MEMORY_BYTES is kept, if it says anything; `first` is called before a thread is made for that. Called by the main
/// thread.
pub fn keep_budget(first: impl FnOnce()) {
    let config = config();
    if let Some((name, value, allowed)) = config.errors.iter().find(|(name, ..)| *name == BUDGET) {
        BUDGET_TOLD.store(true, Ordering::Relaxed);
        log::error!("{name}={value}: not understood; allowed is {allowed}");
    }
    if config.memory_bytes > 0 && !config.disable {
        let remote = config.into();
        let (memory_bytes, prefetch, when_full) = (config.memory_bytes, config.prefetch, config.memory_full);
        let family = config.family.clone();
        first();
        crate::far::start(crate::far::Settings { memory_bytes, remote, prefetch, when_full, family });
    }
}

/// A name for this process at the server.
pub(super) fn random_client() -> Result<ClientId, Errno> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(ClientId(id))
}
