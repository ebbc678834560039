//! The command that is to run: where it is, and whether a preloaded library can get into it.
//!
//! Owns: the search in PATH, the look at ELF headers and `#!` lines. Called by: `run.rs`. Must not: refuse; a program
//! that can't be helped still runs, and the user is told.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, getgid, getuid};
use object::elf::{
    EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, FileHeader32, FileHeader64, PT_INTERP,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};

use crate::probe;

/// A script's interpreter may be a script; the kernel follows four.
const SCRIPTS_MAX: usize = 4;
/// Bytes of a `#!` line that the kernel reads.
const SCRIPT_LINE_BYTES_MAX: u64 = 256;

/// Why a command can't be started.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is none: exit status 127.
    NotFound,
    /// It can't be executed: exit status 126.
    NotExecutable(&'static str),
}

/// Why libnetmem.so will not get into a program, or not see all that it does.
#[derive(Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No PT_INTERP: no loader.
    Static,
    /// Setuid or setgid to somebody else.
    SetId,
    /// File capabilities, started by another user than root.
    Capabilities,
    /// Another processor's program.
    Architecture(String),
    /// musl's loader, and a library made for glibc.
    Musl,
    /// Go.
    Go,
    /// No program at all.
    NotProgram,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Static => f.write_str(
                "statically linked, so there is no loader that could load libnetmem.so; use a dynamically linked build",
            ),
            Obstacle::SetId => f.write_str(
                "setuid or setgid, and the loader ignores LD_PRELOAD for such programs; \
                 run a copy without those bits, or as the file's owner",
            ),
            Obstacle::Capabilities => f.write_str(
                "has file capabilities, and the loader ignores LD_PRELOAD for such programs; \
                 run a copy without them (cp drops them)",
            ),
            Obstacle::Architecture(theirs) => write!(
                f,
                "a program for {theirs}, and libnetmem.so is for {}; use a build for {}",
                std::env::consts::ARCH,
                std::env::consts::ARCH
            ),
            Obstacle::Musl => {
                f.write_str("linked with musl, and libnetmem.so with glibc; use a build for glibc, or a libnetmem.so for musl")
            }
            Obstacle::Go => f.write_str(
                "a Go program; Go issues raw system calls, which no preloaded library sees, so that its files \
                 below /netmem/ are not regions; use netmem import and export, or a C library through cgo",
            ),
            Obstacle::NotProgram => f.write_str("neither an ELF program nor a script with a #! line"),
        }
    }
}

/// Finds a command as execvp does.
pub fn resolve(command: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, Missing> {
    if command.is_empty() {
        return Err(Missing::NotFound);
    }
    if command.as_bytes().contains(&b'/') {
        return executable(Path::new(command));
    }
    let mut result = Err(Missing::NotFound);
    for directory in std::env::split_paths(search.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"))) {
        match executable(&directory.join(command)) {
            Ok(path) => return Ok(path),
            Err(Missing::NotFound) => {}
            Err(other) => result = Err(other),
        }
    }
    result
}

fn executable(path: &Path) -> Result<PathBuf, Missing> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(Missing::NotExecutable("is a directory")),
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(Errno::EACCES as i32) => {
            return Err(Missing::NotExecutable("permission denied on the way to it"));
        }
        Err(_) => return Err(Missing::NotFound),
    }
    match access(path, AccessFlags::X_OK) {
        Ok(()) => Ok(path.to_owned()),
        Err(_) => Err(Missing::NotExecutable("you may not execute it")),
    }
}

/// What stands in the way of preloading into `path`: the file that it is about (the interpreter, for a script) and why.
/// A file that can't be read has no obstacles that we know of.
pub fn obstacles(path: &Path, search: Option<&OsStr>) -> (PathBuf, Vec<Obstacle>) {
    let mut path = path.to_owned();
    for _ in 0..SCRIPTS_MAX {
        match script_interpreter(&path, search) {
            Some(interpreter) => path = interpreter,
            None => break,
        }
    }
    let mut found = Vec::new();
    if let Ok(metadata) = fs::metadata(&path) {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        if changes_identity(metadata.mode(), (metadata.uid(), metadata.gid()), (uid, gid)) {
            found.push(Obstacle::SetId);
        }
        if uid != 0 && probe::has_capabilities(&path) {
            found.push(Obstacle::Capabilities);
        }
    }
    if let Ok(file) = File::open(&path) {
        found.extend(elf_obstacles(&path, file));
    }
    (path, found)
}

/// Whether executing the file makes the loader careful: it does if the effective identity differs from the real one.
fn changes_identity(mode: u32, owner: (u32, u32), ours: (u32, u32)) -> bool {
    let setuid = mode & 0o4000 != 0 && owner.0 != ours.0;
    // Setgid without the group's execute bit is mandatory locking, not an identity.
    let setgid = mode & 0o2010 == 0o2010 && owner.1 != ours.1;
    setuid || setgid
}

/// The program behind a `#!` line; with `#!/usr/bin/env NAME`, NAME.
fn script_interpreter(path: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(SCRIPT_LINE_BYTES_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty());
    let interpreter = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
    if interpreter.file_name() == Some(OsStr::new("env"))
        && let Some(name) = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))
        && let Ok(named) = resolve(OsStr::from_bytes(name), search)
    {
        return Some(named);
    }
    Some(interpreter)
}

fn elf_obstacles(path: &Path, file: File) -> Vec<Obstacle> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache) {
        Ok(FileKind::Elf64) => elf_of_class::<FileHeader64<Endianness>, _>(path, &cache, 64),
        Ok(FileKind::Elf32) => elf_of_class::<FileHeader32<Endianness>, _>(path, &cache, 32),
        Ok(_) | Err(_) => vec![Obstacle::NotProgram],
    }
}

/// A damaged header gives no obstacles: the kernel will say what it thinks of the file.
fn elf_of_class<'data, H, R>(path: &Path, data: R, class: u32) -> Vec<Obstacle>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let mut found = Vec::new();
    let Ok(header) = H::parse(data) else { return found };
    let Ok(endian) = header.endian() else { return found };
    let theirs = architecture(header.e_machine(endian), class);
    if theirs != std::env::consts::ARCH {
        found.push(Obstacle::Architecture(theirs));
    }
    let Ok(segments) = header.program_headers(endian, data) else { return found };
    let interpreter = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP);
    match interpreter.map(|segment| segment.data(endian, data).unwrap_or_default()) {
        Some(loader) if cfg!(target_env = "gnu") && contains(loader, b"/ld-musl-") => {
            found.push(Obstacle::Musl)
        }
        Some(_) => {}
        // The loader itself, called as a command, has no interpreter and obeys LD_PRELOAD.
        None if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-linux")) => {}
        None => found.push(Obstacle::Static),
    }
    if let Ok(sections) = header.sections(endian, data) {
        let go: [&[u8]; 2] = [b".go.buildinfo", b".note.go.buildid"];
        if go.iter().any(|name| sections.section_by_name(endian, name).is_some()) {
            found.push(Obstacle::Go);
        }
    }
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The name that Rust has for the processor.
fn architecture(machine: u16, class: u32) -> String {
    let name = match (machine, class) {
        (EM_X86_64, 64) => "x86_64",
        (EM_X86_64, _) => "x86_64 with 32-bit pointers",
        (EM_386, _) => "x86",
        (EM_AARCH64, _) => "aarch64",
        (EM_ARM, _) => "arm",
        (EM_RISCV, 64) => "riscv64",
        (EM_PPC64, _) => "powerpc64",
        (EM_S390, _) => "s390x",
        (other, _) => return format!("ELF machine {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn compile(directory: &Path, name: &str, flags: &[&str]) -> Option<PathBuf> {
        let (source, out) = (directory.join(format!("{name}.c")), directory.join(name));
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let status = Command::new("cc").args(flags).arg("-o").arg(&out).arg(&source).status();
        status.is_ok_and(|status| status.success()).then_some(out)
    }

    fn executable_file(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_missing_command_is_127_and_one_without_permission_126() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "x").unwrap();
        assert_eq!(resolve(OsStr::new("no-such-command-at-all"), None), Err(Missing::NotFound));
        assert_eq!(resolve(OsStr::new("/no/such"), None), Err(Missing::NotFound));
        assert!(matches!(resolve(plain.as_os_str(), None), Err(Missing::NotExecutable(_))));
        let search = directory.path().as_os_str();
        assert!(matches!(resolve(OsStr::new("plain"), Some(search)), Err(Missing::NotExecutable(_))));
        assert!(resolve(OsStr::new("sh"), None).is_ok());
    }

    #[test]
    fn a_dynamic_program_has_no_obstacle_and_a_static_one_does() {
        let directory = tempfile::tempdir().unwrap();
        // Skipped without a C compiler; CI has one.
        let Some(dynamic) = compile(directory.path(), "dynamic", &[]) else { return };
        assert_eq!(obstacles(&dynamic, None).1, []);
        for flags in [["-static", "-O0"], ["-static-pie", "-O0"]] {
            // Skipped where there is no static C library.
            let Some(program) = compile(directory.path(), "static", &flags) else { continue };
            assert_eq!(obstacles(&program, None).1, [Obstacle::Static]);
            let script = directory.path().join("script");
            executable_file(&script, format!("#! {} -x\n", program.display()).as_bytes());
            assert_eq!(obstacles(&script, None), (program, vec![Obstacle::Static]));
        }
    }

    #[test]
    fn another_processors_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut image = fs::read("/proc/self/exe").unwrap();
        let other = if cfg!(target_arch = "aarch64") { 62u16 } else { 183 };
        image[18..20].copy_from_slice(&other.to_le_bytes());
        let path = directory.path().join("other");
        executable_file(&path, &image);
        let name = if other == 62 { "x86_64" } else { "aarch64" };
        assert_eq!(obstacles(&path, None).1, [Obstacle::Architecture(name.to_owned())]);
    }

    #[test]
    fn a_section_that_go_makes_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("go.c");
        let text = "__attribute__((section(\".go.buildinfo\"))) int go = 1;\nint main(void) { return 0; }\n";
        fs::write(&source, text).unwrap();
        let out = directory.path().join("go");
        // Skipped without a C compiler; CI has one.
        if !Command::new("cc").arg("-o").arg(&out).arg(&source).status().is_ok_and(|status| status.success())
        {
            return;
        }
        assert_eq!(obstacles(&out, None).1, [Obstacle::Go]);
    }

    #[test]
    fn env_is_looked_through() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        executable_file(&script, b"#!/usr/bin/env -S A=1 sh -e\n");
        let found = script_interpreter(&script, Some(OsStr::new("/usr/bin:/bin"))).unwrap();
        assert_eq!(found.file_name(), Some(OsStr::new("sh")));
    }

    #[test]
    fn text_without_an_interpreter_is_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        executable_file(&path, b"echo hello\n");
        assert_eq!(obstacles(&path, None).1, [Obstacle::NotProgram]);
    }

    #[test]
    fn only_a_change_of_identity_makes_the_loader_careful() {
        for (mode, owner, ours, careful) in [
            (0o4755, (0, 0), (1000, 1000), true),
            (0o4755, (0, 0), (0, 0), false),
            (0o2755, (0, 42), (1000, 1000), true),
            (0o2745, (0, 42), (1000, 1000), false),
            (0o755, (0, 0), (1000, 1000), false),
        ] {
            assert_eq!(changes_identity(mode, owner, ours), careful, "{mode:o} {owner:?} {ours:?}");
        }
    }
}
