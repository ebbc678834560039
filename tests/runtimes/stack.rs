//! A program of Rust's std, which has a SIGSEGV handler of its own from the start: `stack FILE write`, `stack FILE read` and
//! `stack FILE overflow`, which reads and then runs out of its stack.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

const PAGE: usize = 4096;
const PAGES: usize = 512;

unsafe extern "C" {
    fn mmap(at: *mut u8, length: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    fn msync(at: *mut u8, length: usize, flags: i32) -> i32;
}

fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1) + room[(depth % 64) as usize] }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&arguments[1]).unwrap();
    file.set_len((PAGES * PAGE) as u64).unwrap();
    // SAFETY: a new mapping where the kernel likes.
    let at = unsafe { mmap(std::ptr::null_mut(), PAGES * PAGE, 3, 1, file.as_raw_fd(), 0) };
    assert_ne!(at as usize, usize::MAX);
    let write = arguments[2] == "write";
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let at = at as usize;
            std::thread::spawn(move || {
                let mut sum = 0u64;
                for page in (thread..PAGES).step_by(4) {
                    let byte = (at + page * PAGE + page) as *mut u8;
                    // SAFETY: inside the mapping, and each thread has pages of its own.
                    unsafe {
                        if write {
                            byte.write_volatile(page as u8);
                        }
                        sum += u64::from(byte.read_volatile());
                    }
                }
                sum
            })
        })
        .collect();
    println!("{}", threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>());
    // SAFETY: the mapping itself.
    assert_eq!(unsafe { msync(at, PAGES * PAGE, 4) }, 0);
    if arguments[2] == "overflow" {
        println!("{}", std::thread::Builder::new().name("deep".into()).spawn(|| deeper(0)).unwrap().join().unwrap());
    }
}
