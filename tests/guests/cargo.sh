# cargo builds and runs a crate of one file.
rm -rf crate; mkdir -p crate/src; cd crate; export CARGO_TARGET_DIR=$PWD/target CARGO_TERM_COLOR=never
printf '[package]\nname = "one"\nedition = "2021"\n[workspace]\n' > Cargo.toml
printf 'fn main() { println!("{:?}", (1..9).map(|i| i * i).collect::<Vec<_>>()) }\n' > src/main.rs
cargo build -q --offline; target/debug/one; cargo run -q --offline; cargo build --offline 2>&1 | grep -c Finished
