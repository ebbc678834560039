//! Link arguments of the library: its constructor runs before and its destructor after everyone else's (`-z initfirst`), it is
//! never unloaded, and only the names in abi/exports/ are visible.

fn main() {
    cc::Build::new()
        .file("src/abi/variadic.c")
        .file("src/sys/own.c")
        .warnings(true)
        .flag("-fvisibility=hidden")
        .compile("netmem_variadic");
    println!("cargo:rerun-if-changed=src/abi/variadic.c");
    println!("cargo:rerun-if-changed=src/sys/own.c");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnetmem.so");
    println!("cargo:rerun-if-changed=build.rs");
}
