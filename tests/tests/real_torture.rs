//! Programs that were written to break file systems: they check what they read themselves, and find nothing.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: install anything: what is missing is skipped, with the
//! command that would bring it.

use std::time::Duration;

use netmem_tests::engine::RUNGS;
use netmem_tests::real::{REAL_RUNGS, cargo_tool, have, run_script, same_on};
use netmem_tests::{Engine, on_each_rung};

/// On a loaded machine with two processors.
const LIMIT: Duration = Duration::from_secs(55);
/// Of a long form.
const LONG: Duration = Duration::from_secs(300);

/// fsx's own default operations, and no change of the size.
const FSX_MINIMAL: &str = "[weights]\ntruncate = 0.0\n";
/// Everything fsx can do.
const FSX_FULL: &str =
    "[weights]\nclose_open = 1.0\ninvalidate = 1.0\ntruncate = 10.0\nfsync = 1.0\nfdatasync = 1.0
posix_fallocate = 1.0\npunch_hole = 1.0\nsendfile = 1.0\nposix_fadvise = 1.0\ncopy_file_range = 1.0\n";

/// It maps the file for each operation through a mapping and, when it only read, never gives the mapping back: after 20,000 operations
/// there are some 5,000 of one file, over every page of it, while it is cut and grown.
fn fsx(engine: Engine, operations: u32, seeds: &[u32], limit: Duration) {
    let Some(fsx) = cargo_tool("fsx") else { return };
    for seed in seeds {
        for (name, weights) in [("full", FSX_FULL), ("minimal", FSX_MINIMAL)] {
            let script = format!(
                "printf '{weights}' > $L/fsx.toml; {} -f $L/fsx.toml -N {operations} -S {seed} -P $L $D/fsx 2>&1",
                fsx.display()
            );
            let output = run_script(engine, &script, limit);
            assert_eq!(output.code(), 0, "{name}, seed {seed}: {output}");
            assert_eq!(
                output.stdout.trim(),
                "All operations completed A-OK!",
                "{name}, seed {seed}: {output}"
            );
            assert_eq!(output.stderr, "", "{name}, seed {seed}: {output}");
        }
    }
}

fn fsx_finds_nothing(engine: Engine) {
    fsx(engine, 4000, &[1], LIMIT);
}

on_each_rung!(fsx_finds_nothing);

#[test]
#[ignore = "long: make test-long"]
fn fsx_finds_nothing_in_20_000_operations() {
    for engine in RUNGS.into_iter().filter_map(Engine::require) {
        fsx(engine, 20_000, &[2, 3, 4], LONG);
    }
}

const FIO: &str =
    "fio --bs=4k --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=1 --output=$L/fio.out";

fn fio(lines: &str) {
    if have(&["fio"], "fio") {
        same_on(&REAL_RUNGS, &format!("{lines}\ngrep -o 'err= *0' $L/fio.out"), LIMIT);
    }
}

#[test]
fn fio_maps_a_file_in_one_job_that_syncs_every_32_writes() {
    fio(&format!("{FIO} --name=one --ioengine=mmap --filename=$D/vol --size=16m --rw=randrw --fsync=32"));
}

/// On a file of each job's own: fio's mmap engine takes --offset for granted twice, on a local file too.
#[test]
fn fio_maps_files_in_two_jobs_and_in_four_threads() {
    let common = "--ioengine=mmap --directory=$D --rw=randrw --fsync=32";
    fio(&format!(
        "{FIO} --name=two --numjobs=2 {common} --size=8m; {FIO} --name=four --thread --numjobs=4 {common} --size=4m"
    ));
}

/// Two jobs and four threads over the whole of one file, which all write the same into.
#[test]
fn fio_maps_one_file_in_two_jobs_and_in_four_threads() {
    let common = "--ioengine=mmap --filename=$D/vol --size=8m --rw=randrw --verify=pattern --verify_pattern=0xdeadface";
    fio(&format!(
        "{FIO} --name=two --numjobs=2 {common}; {FIO} --name=four --thread --numjobs=4 {common} --fsync=32"
    ));
}

#[test]
fn fio_reads_and_writes_one_file_in_two_jobs_and_in_four_threads() {
    let disjoint = "--filename=$D/vol --size=4m --offset_increment=4m --rw=randwrite --fsync=32";
    fio(&format!(
        "{FIO} --name=two --ioengine=psync --numjobs=2 {disjoint}
         {FIO} --name=four --ioengine=pvsync2 --thread --numjobs=4 {disjoint}
         {FIO} --name=mixed --ioengine=psync --filename=$D/mixed --size=8m --rw=randrw
         {FIO} --name=vectors --ioengine=pvsync2 --filename=$D/vectors --size=8m --rw=randrw"
    ));
}

/// stress-ng's stressors that map, lock, seek and sync files, each looking at what it reads.
fn stress(stressors: &[(&str, &str, u32)]) {
    if !have(&["stress-ng"], "stress-ng") {
        return;
    }
    let mut script = "cd $L; mkdir $D/stress\n".to_owned();
    for (name, more, operations) in stressors {
        script += &format!(
            "stress-ng --{name} 1 {more} --{name}-ops {operations} --verify --temp-path $D/stress --timeout 40 \
             >$L/out 2>&1 || {{ cat $L/out; exit 1; }}\ngrep -E 'fail|error' $L/out && exit 1\necho {name} $(ls -A $D/stress | wc -l)\n"
        );
    }
    same_on(&REAL_RUNGS, &script, LIMIT);
}

#[test]
fn stress_ng_maps_files_and_syncs_them() {
    stress(&[
        ("mmap", "--mmap-file --mmap-bytes 1m", 3),
        ("msync", "--msync-bytes 2m", 100),
        ("msyncmany", "", 5),
        ("sync-file", "--sync-file-bytes 2m", 10),
        ("mmapfixed", "", 5),
    ]);
}

#[test]
fn stress_ng_gives_advice_moves_and_allocates() {
    stress(&[
        ("madvise", "", 5),
        ("mincore", "", 20),
        ("mremap", "--mremap-bytes 1m", 20),
        ("fallocate", "--fallocate-bytes 1m", 20),
    ]);
}

#[test]
fn stress_ng_locks_seeks_and_copies() {
    stress(&[
        ("flock", "", 50),
        ("lockf", "", 50),
        ("locka", "", 50),
        ("lockofd", "", 50),
        ("seek", "--seek-size 2m", 200),
        ("hdd", "--hdd-bytes 2m", 20),
        ("copy-file", "--copy-file-bytes 128m", 2),
        ("sendfile", "--sendfile-size 1m", 20),
        ("splice", "", 20),
        ("readahead", "--readahead-bytes 1m", 20),
        ("rename", "", 50),
        ("revio", "--revio-bytes 1m", 20),
    ]);
}

/// A script of mmap, mwrite, mread, mremap, madvise, falloc and fpunch. Times and addresses are dropped.
#[test]
fn xfs_io_maps_moves_punches_and_reads() {
    if !have(&["xfs_io"], "xfsprogs") {
        return;
    }
    let script = r#"
        (
        xfs_io -f -c "pwrite -S 0x11 0 1m" -c "mmap -rw 0 256k" -c "mwrite -S 0x22 8k 16k" -c "mread -v 8k 32" \
            -c "msync -s 0 256k" -c "madvise -d" -c "mread -v 24k 16" -c "munmap" $D/x
        xfs_io -c "mmap -rw 0 128k" -c "mremap 64k" -c "mremap -m 512k" -c "mwrite -S 0x33 400k 8k" -c "mread -v 400k 16" \
            -c "falloc 1m 64k" -c "pread -v 1m 16" -c "fpunch 16k 16k" -c "mread -v 16k 16" -c "munmap" $D/x
        xfs_io -c "stat -v" $D/x | grep -E 'stat.(size|type)'
        xfs_io -c "truncate 300k" -c "mmap -r 0 300k" -c "mread -v 299k 16" -c "madvise -r" -c "madvise -w" -c "madvise -s" \
            -c "munmap" $D/x
        xfs_io -c "sync_range 0 64k" -c "fsync" -c "fdatasync" -c "pwrite -V 2 -b 4k 0 16k" -c "sendfile -i $D/x 0 1k" $D/x
        xfs_io -f -c "copy_range $D/x" $D/y; xfs_io -c "pread -V 3 0 300k" $D/y
        xfs_io -c "mmap 0 64k" -c "mwrite 0 4k" -c "mread -v 0 16" $D/x
        xfs_io -c "seek -a 0" $D/x | tail -n 2
        sha256sum < $D/x; sha256sum < $D/y
        ) 2>&1 | sed -E "s#$D#DIR#g" | grep -v ' ops; '"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn bonnie_and_dbench_come_to_their_end() {
    if !have(&["bonnie++", "dbench"], "bonnie++ dbench") {
        return;
    }
    let script = r#"
        cd $L
        user=(); [[ $(id -u) != 0 ]] || user=(-u root)
        bonnie++ -f -d $D -s 8m:4k -r 4m -n 0 "${user[@]}" -q >$L/bonnie 2>&1 || { cat $L/bonnie; exit 1; }
        dbench --skip-cleanup -t 1 -D $D 2 >$L/dbench 2>&1 || { cat $L/dbench; exit 1; }
        grep -o '^Throughput' $L/dbench"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}
