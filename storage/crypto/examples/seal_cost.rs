//! Prints what sealing and opening cost, in nanoseconds a record: `cargo run --release -p zyflow-crypto --example seal_cost`.
//!
//! Each figure is the best of several rounds: the machine's noise only ever adds.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey, Purpose, open, seal};

const ROUNDS: u32 = 9;
const RECORDS_PER_ROUND: u32 = 20_000;

fn best_nanos<E: Error>(mut record: impl FnMut() -> Result<(), E>) -> Result<u128, E> {
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..RECORDS_PER_ROUND {
            record()?;
        }
        best = best.min(begun.elapsed().as_nanos() / u128::from(RECORDS_PER_ROUND));
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
    let local = LocalKey::create_or_load(&folder.path().join("node.key"), &ring)?;
    let lineage = Lineage::mint()?;
    println!("{:>7} {:>10} {:>10} {:>11} {:>11}", "bytes", "seal ns", "open ns", "local seal", "local open");
    for bytes in [64, 256, 1024, 4096, 65536] {
        let plaintext = vec![0x5a; bytes];
        let sealed = seal(&ring, Purpose::Entry, &lineage, &[1; 16], &plaintext)?;
        let sealed_here = local.seal(b"rows/1", &plaintext)?;
        let figures = [
            best_nanos(|| seal(&ring, Purpose::Entry, &lineage, &[1; 16], &plaintext).map(|out| drop(black_box(out))))?,
            best_nanos(|| open(&ring, Purpose::Entry, &lineage, &sealed).map(|out| drop(black_box(out))))?,
            best_nanos(|| local.seal(b"rows/1", &plaintext).map(|out| drop(black_box(out))))?,
            best_nanos(|| local.open(b"rows/1", &sealed_here).map(|out| drop(black_box(out))))?,
        ];
        println!("{bytes:>7} {:>10} {:>10} {:>11} {:>11}", figures[0], figures[1], figures[2], figures[3]);
    }
    Ok(())
}
