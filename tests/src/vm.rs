//! A machine of its own, emulated, that boots a kernel with the built tree in its memory and runs a plan there.
//!
//! Owns: what the machine holds, its console, its time. Called by: tests/stock_kernels.rs. Must not: need a disk, a
//! network, root or KVM.
//!
//! Everything has the same path there as here, so that a test binary finds its programs: the repository's sources of
//! programs, and TARGET/test-programs. What was built lies in /opt/netmem.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::built::{alone, built, compile, root, target_directory};
use crate::hang::wait;
use crate::initramfs::Initramfs;
use crate::source::files;

/// Where libnetmem.so, netmem-server and netmem lie in the machine.
pub const BUILT: &str = "/opt/netmem";

/// Programs of this machine that plans and test programs call.
const TOOLS: [&str; 20] = [
    "sh", "setpriv", "timeout", "cat", "chmod", "mkdir", "rmdir", "mount", "umount", "rm", "ls", "env",
    "head", "dd", "id", "uname", "chown", "true", "echo", "md5sum",
];

/// Sources whose programs the machine needs, compiled here: there is no compiler in it.
const PROGRAMS: [&str; 3] = ["tests/programs", "tests/agent", "tests/races"];

/// What a machine is made of.
#[derive(Debug)]
pub struct Vm<'a> {
    /// For the names of its files below TARGET/vm.
    pub name: String,
    /// The kernel's image.
    pub image: PathBuf,
    /// Test binaries by their names (`programs`).
    pub tests: Vec<&'a str>,
    /// A script for /bin/sh.
    pub plan: String,
    /// How long it may run.
    pub limit: Duration,
}

/// What a machine said until its end.
#[derive(Debug)]
pub struct Console {
    /// All lines.
    pub text: String,
    /// What the plan ended with; None if the machine stopped before that.
    pub status: Option<i32>,
}

impl Vm<'_> {
    /// Boots, runs the plan, and is gone. Its console is kept as TARGET/vm/NAME.log.
    pub fn run(&self) -> Console {
        let place = target_directory().join("vm");
        fs::create_dir_all(&place).expect("target/vm");
        let initrd = place.join(format!("{}.cpio", self.name));
        fs::write(&initrd, self.initramfs()).expect("the initramfs");
        let log = place.join(format!("{}.log", self.name));
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&initrd)
            // A kernel that is in trouble ends the machine, and says why.
            .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-x86_64");
        let out = child.stdout.take().expect("the console");
        let log_file = fs::File::create(&log).expect("the log");
        let reader = thread::spawn(move || keep(out, log_file));
        let ended = wait(child, self.limit);
        let text = reader.join().unwrap_or_default();
        let _ = fs::remove_file(&initrd);
        let mark = text.lines().rev().find_map(|line| line.strip_prefix("netmem-vm: the plan ended with "));
        let status = mark.and_then(|status| status.trim().parse().ok());
        if let Err(hang) = ended {
            let last: Vec<&str> = text.lines().rev().take(30).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            panic!("{}: {}\nits last lines (all: {}):\n{}", self.name, hang, log.display(), last.join("\n"));
        }
        Console { text, status }
    }

    fn initramfs(&self) -> Vec<u8> {
        let mut all = Initramfs::default();
        // What the repository and the target directory lie below is a plain directory of the archive.
        all.directory(Path::new("/tmp"), 0o1777);
        all.file(
            Path::new("/etc/passwd"),
            0o644,
            b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        );
        all.file(Path::new("/etc/group"), 0o644, b"root:x:0:\nnogroup:x:65534:\n");
        all.file(Path::new("/etc/hosts"), 0o644, b"127.0.0.1 localhost\n");
        all.file(Path::new("/plan"), 0o644, self.plan.as_bytes());
        for tool in TOOLS {
            let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|d| Path::new(d).join(tool));
            let path = found.iter().find(|path| path.exists());
            let path = path.unwrap_or_else(|| panic!("no {tool} on this machine"));
            all.program(path, &Path::new("/bin").join(tool));
        }
        let ours = [&built().library, &built().server, &built().command];
        for path in ours {
            all.program(path, &Path::new(BUILT).join(path.file_name().expect("a file")));
        }
        let programs = target_directory().join("test-programs");
        // Whoever runs a test makes a lock there.
        all.directory(&programs, 0o777);
        for directory in PROGRAMS {
            for source in files(directory, &[".c"]) {
                all.file(&root().join(&source.path), 0o644, source.text.as_bytes());
                let path = compile(&source.path, &["-lm"]);
                all.program(&path, &path);
            }
        }
        for name in &self.tests {
            all.program(&test_binary(name), &target_directory().join("debug/deps").join(name));
        }
        let init = compile_init();
        all.program(&init, Path::new("/init"));
        all.finish()
    }
}

/// Lines as they come, to the file too, each with the seconds since the start; `\r` goes.
fn keep(from: impl std::io::Read, mut to: fs::File) -> String {
    let start = Instant::now();
    let mut text = String::new();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        let one = String::from_utf8_lossy(&line).replace('\r', "");
        let _ = write!(to, "{:8.2} {one}", start.elapsed().as_secs_f64());
        text.push_str(&one);
        line.clear();
    }
    text
}

/// The newest binary of a test of this package: cargo puts a hash behind its name.
fn test_binary(name: &str) -> PathBuf {
    let directory = std::env::current_exe().expect("the path of this test");
    let directory = directory.parent().expect("its directory");
    let is_it = |file: &str| {
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|hash| hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let entries = fs::read_dir(directory).expect("target/debug/deps").flatten();
    let mine = entries.filter(|entry| is_it(&entry.file_name().to_string_lossy()));
    let newest = mine.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    newest.unwrap_or_else(|| panic!("{name} is not built: cargo test -p netmem-tests --no-run")).path()
}

fn compile_init() -> PathBuf {
    let _alone = alone("init.lock");
    let out = target_directory().join("test-programs").join("vm-init");
    let source = root().join("tests/vm/init.c");
    let output = Command::new("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-static", "-o"])
        .arg(&out)
        .arg(&source)
        .output()
        .expect("gcc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}
