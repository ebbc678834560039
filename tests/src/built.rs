//! What is tested, as files: libnetmem.so, netmem-server, netmem, and the C programs.
//!
//! Owns: building them. Called by: the rest of the harness. Must not: build twice at once into one name: whatever runs
//! beside us sees a whole file or none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

/// The files under test.
#[derive(Debug)]
pub struct Built {
    /// libnetmem.so
    pub library: PathBuf,
    /// netmem-server
    pub server: PathBuf,
    /// netmem
    pub command: PathBuf,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Cargo's target directory, found from where this test binary lies (TARGET/PROFILE/deps/NAME).
pub fn target_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("the path of this test");
    executable.ancestors().nth(3).map(Path::to_owned).expect("TARGET/PROFILE/deps/NAME")
}

/// The files under test: those in NETMEM_TEST_BIN_DIR, or a release build of this tree made at the first call.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = match std::env::var_os("NETMEM_TEST_BIN_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => build_release(),
        };
        let find = |name: &str| {
            let path = directory.join(name);
            fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        Built { library: find("libnetmem.so"), server: find("netmem-server"), command: find("netmem") }
    })
}

/// Under nextest each test is a process of its own; only the first of a run asks cargo.
fn build_release() -> PathBuf {
    let target = target_directory();
    let release = target.join("release");
    let marks = target.join("test-programs");
    fs::create_dir_all(&marks).expect("target/test-programs");
    let _alone = alone("build.lock");
    let run = std::env::var("NEXTEST_RUN_ID").ok();
    let mark = marks.join("build.run");
    if run.is_some() && fs::read_to_string(&mark).ok() == run {
        return release;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "-p", "netmem-shim", "-p", "netmem-server", "-p", "netmem-cli"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "cargo build --release:\n{}", String::from_utf8_lossy(&output.stderr));
    if let Some(run) = run {
        fs::write(mark, run).expect("target/test-programs/build.run");
    }
    release
}

/// Waits until no other process of the tests holds the lock of this name, and holds it until it is dropped.
pub fn alone(name: &str) -> Flock<File> {
    let file = File::create(target_directory().join("test-programs").join(name)).expect("a lock");
    Flock::lock(file, FlockArg::LockExclusive).unwrap_or_else(|(_, errno)| panic!("{name}: {errno}"))
}

/// Flags of every program: those of tests/programs/README.md.
const FLAGS: [&str; 7] = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-D_GNU_SOURCE"];

/// The program `name` of tests/programs.
pub fn program(name: &str) -> PathBuf {
    compile(&format!("tests/programs/{name}.c"), &[])
}

/// The program of a source that calls the library by name: linked with it.
pub fn linked(source: &str) -> PathBuf {
    let directory = built().library.parent().expect("a directory").display().to_string();
    compile(source, &[&format!("-L{directory}"), "-lnetmem", &format!("-Wl,-rpath,{directory}")])
}

/// Compiles a C or C++ source of the repository, unless that was done since it or a header was changed. With
/// NETMEM_TEST_PREBUILT, on a machine without a compiler, it must be there.
pub fn compile(source: &str, more: &[&str]) -> PathBuf {
    let path = root().join(source);
    let name = source.trim_end_matches(".cpp").trim_end_matches(".c").replace('/', "-");
    let out = target_directory().join("test-programs").join(name);
    if std::env::var_os("NETMEM_TEST_PREBUILT").is_some() {
        assert!(out.exists(), "{source} was not compiled beforehand");
        return out;
    }
    if modified(&out).is_some_and(|made| made > newest_input(&path)) {
        return out;
    }
    fs::create_dir_all(out.parent().expect("a directory")).expect("target/test-programs");
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let fresh = out.with_extension(format!("new-{}-{count}", process::id()));
    let cpp = source.ends_with(".cpp");
    let output = Command::new(if cpp { "g++" } else { "gcc" })
        .args(FLAGS)
        .args(if cpp { &["-std=c++17"][..] } else { &[] })
        .arg("-I")
        .arg(root().join("include"))
        .arg("-o")
        .arg(&fresh)
        .arg(&path)
        .args(more)
        .output()
        .unwrap_or_else(|error| panic!("a C compiler is needed: {error}"));
    assert!(output.status.success(), "{source}:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &out).expect("the name of the program");
    out
}

fn newest_input(source: &Path) -> SystemTime {
    let mut newest = modified(source).unwrap_or_else(|| panic!("{}: no such program", source.display()));
    let beside = source.parent().map(Path::to_owned).unwrap_or_default();
    for directory in [beside, root().join("include")] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|kind| kind == "h" || kind == "hpp") {
                newest = newest.max(modified(&path).unwrap_or(newest));
            }
        }
    }
    newest
}

fn modified(path: &Path) -> Option<SystemTime> {
    let result: io::Result<SystemTime> = fs::metadata(path).and_then(|metadata| metadata.modified());
    result.ok()
}
