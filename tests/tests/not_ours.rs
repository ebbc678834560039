//! Those who don't use us don't notice us: no connection, no thread, no descriptor, no file, the same output.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: start a server.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

use netmem_tests::built::{compile, root};
use netmem_tests::engine::best;
use netmem_tests::skip::skip;
use netmem_tests::{Host, Output, Run};

/// Runs it with the library and without, in directories of the same content, and gives both.
fn with_and_without(program: &str, arguments: &[&str], input: &str) -> (Output, Output) {
    let host = Host::new(best());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let url = format!("tcp://{}", listener.local_addr().expect("its address"));
    let ours = Run::on(&host, &url, program).args(arguments).stdin(input).output();
    let plain = Run::plain(program).args(arguments).cwd(host.files()).stdin(input).output();
    let connection = listener.accept().err().map(|error| error.kind());
    assert_eq!(connection, Some(ErrorKind::WouldBlock), "it connected to the server: {ours}");
    let left = fs::read_dir(host.cache()).expect("the directory").count();
    assert_eq!(left, 0, "it made files in NETMEM_DIR");
    (ours, plain)
}

fn same(program: &str, arguments: &[&str], input: &str) -> Output {
    let (ours, plain) = with_and_without(program, arguments, input);
    assert_eq!(ours.stdout, plain.stdout, "{ours}");
    assert_eq!(ours.stderr, plain.stderr, "{ours}");
    assert_eq!(ours.code(), plain.code(), "{ours}");
    ours
}

#[test]
fn a_program_of_its_own_has_one_task_and_its_own_descriptors() {
    let guest = compile("tests/agent/guest.c", &[]).display().to_string();
    let output = same(&guest, &[], "");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("tasks 1\ndescriptors 3\n", ""));
}

#[test]
fn an_empty_prefix_of_ours_is_no_file_of_the_kernels() {
    // The name of the prefix itself is ours; one that only begins like it is not.
    same("/bin/sh", &["-c", "ls /netmemory /netmem.d 2>&1; cat /netme; echo $?"], "");
}

#[test]
fn a_shell_with_pipes_children_and_redirections() {
    let script = "set -e
        echo one > file; echo two >> file; exec 3< file; read line <&3; echo got $line
        cat file | sort -r | tee sorted | wc -l
        (cd /; pwd); for i in 1 2 3; do (echo child $i) & wait; done
        printf 'x%.0s' $(seq 1000) | md5sum; cat <<END | tr a-z A-Z
here document
END
        trap 'echo trapped' USR1; kill -USR1 $$; ls -l /proc/self/fd | wc -l; rm file sorted; exit 7";
    let output = same("/bin/bash", &["-c", script], "");
    assert_eq!(output.code(), 7, "{output}");
}

#[test]
fn python_with_its_files_maps_children_and_threads() {
    let script = "
import mmap, os, subprocess, sys, tempfile, threading
with tempfile.TemporaryFile() as f:
    f.write(b'x' * 100000); f.flush()
    m = mmap.mmap(f.fileno(), 0); m[5:8] = b'abc'; m.flush(); f.seek(4); print(f.read(5), len(m)); m.close()
a = mmap.mmap(-1, 1 << 20); a[:3] = b'anm'; print(a[:4])
print(subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'to a child', capture_output=True))
t = [threading.Thread(target=sum, args=(range(1000),)) for _ in range(8)]
[x.start() for x in t]; [x.join() for x in t]
r, w = os.pipe()
if os.fork() == 0:
    os.write(w, b'from a child'); os._exit(0)
print(os.read(r, 100)); os.wait()
";
    if Run::plain("/bin/sh").args(["-c", "python3 -c 1"]).output().code() != 0 {
        return skip("python3", "python3 is not installed");
    }
    let output = same("/bin/sh", &["-c", "exec python3 -"], script);
    assert_eq!(output.code(), 0, "{output}");
}

#[test]
fn a_compiler_makes_the_same_program() {
    let source = root().join("examples-c/hashtable.c").display().to_string();
    let output = same("/bin/sh", &["-c", &format!("gcc -O1 -c -o - -pipe {source} | md5sum")], "");
    assert_eq!(output.code(), 0, "{output}");
}

/// Runs tests/guests/NAME.sh, which needs `program`, with the library and without.
fn same_script(name: &str, program: &str, package: &str) {
    let there = Run::plain("/bin/sh").args(["-c", &format!("command -v {program}")]).output();
    if there.code() != 0 {
        return skip(package, &format!("{program}: not installed; apt-get install {package}"));
    }
    let script = fs::read_to_string(root().join("tests/guests").join(format!("{name}.sh")));
    let output = same("/bin/bash", &["-euo", "pipefail", "-c", &script.expect("the script")], "");
    assert_eq!(output.code(), 0, "{output}");
}

#[test]
fn git_makes_the_same_commits() {
    same_script("git", "git", "git");
}

#[test]
fn cargo_builds_the_same_crate() {
    same_script("cargo", "cargo", "cargo");
}

#[test]
fn redis_with_jemalloc_and_a_snapshot_by_fork() {
    same_script("redis", "redis-server", "redis-server");
}

#[test]
fn node_has_its_own_threads_and_descriptors() {
    same_script("node", "node", "nodejs");
}

#[test]
fn java_handles_its_own_faults() {
    same_script("java", "keytool", "openjdk-17-jre-headless");
}

#[test]
fn a_program_that_closes_all_descriptors_or_runs_out_of_them() {
    let script = "ulimit -n 20; exec 9>&1; for i in 3 4 5 6 7 8; do eval \"exec $i>&-\"; done; echo still here >&9; ls /proc/self/fd | wc -l";
    same("/bin/bash", &["-c", script], "");
}

#[test]
fn a_program_without_an_environment_or_with_a_closed_standard_error() {
    same(
        "/bin/sh",
        &["-c", "env -i /bin/echo alone; /bin/ls /no/such 2>&-; echo $?; exec 0<&-; cat; echo $?"],
        "",
    );
}
