//! The bodies of the fuzz targets, over their kept inputs and over mutations of the samples: so they can't rot where there is no libFuzzer.
//!
//! `tests/fuzz/` holds the bodies and the targets for long runs. An input that broke a law is kept in `tests/fuzz/seeds/` and runs
//! here from then on. The mutations come from a fixed seed; a failing one is printed as a file to keep.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test should panic, and it reads its inputs"
)]

#[path = "../../../tests/fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Mutations for each target: a few seconds in all.
const CASES: usize = 3_000;

/// Longest mutated input, in bytes; the samples are shorter.
const INPUT_BYTES_MAX: usize = 8 << 10;

/// What makes a text mean something else.
const PIECES: [&[u8]; 22] = [
    b"- [ ] ",
    b"- [x] 1.1 ",
    b"[-]",
    b"## ",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"\t",
    b"```\n",
    b"~~~~\n",
    b"---\n",
    b"<!--",
    b"-->\n",
    b"| a | b |\n",
    b"> ",
    b"\xef\xbb\xbf",
    b"\xe6\x97\xa5\xe8\xaa\x8c",
    b"\xff",
    b"\0",
    b"<<<<<<< a\n",
    b"T001 ",
];

/// A generator of numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or_default() % limit.max(1)
    }
}

fn folder(path: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join(path)
}

fn inputs(path: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(path)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One change of an input: by bytes, by lines, by pieces that mean something, or with a part of another.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    let end = (at + numbers.below(40)).min(input.len());
    let lines: Vec<Vec<u8>> = input.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    match numbers.below(7) {
        0 => input.insert(at, u8::try_from(numbers.below(256)).unwrap_or_default()),
        1 => drop(input.drain(at..end)),
        2 => drop(input.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied())),
        3 => {
            let other = &others[numbers.below(others.len())];
            let start = numbers.below(other.len());
            let stop = (start + numbers.below(200)).min(other.len());
            drop(input.splice(at..at, other[start..stop].iter().copied()));
        }
        4 if !lines.is_empty() => {
            let line = lines[numbers.below(lines.len())].clone();
            drop(input.splice(at..at, line));
        }
        5 if !lines.is_empty() => {
            let mut lines = lines;
            let line = lines.remove(numbers.below(lines.len()));
            let to = numbers.below(lines.len() + 1);
            lines.insert(to, line);
            *input = lines.concat();
        }
        _ if at < input.len() => input[at] ^= 1u8 << numbers.below(8),
        _ => input.push(b'\n'),
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn run(target: &str, body: fn(&[u8]), parts: usize) {
    let kept = inputs(&format!("../../tests/fuzz/seeds/{target}"));
    let attempt = |input: &[u8]| {
        if catch_unwind(|| body(input)).is_err() {
            let escaped = input.escape_ascii();
            panic!("{target} broke a law; keep this input in tests/fuzz/seeds/{target}: b\"{escaped}\"");
        }
    };
    for input in &kept {
        attempt(input);
    }
    let samples = inputs("tests/samples");
    let mut numbers = Numbers(0x5eed_0000 + u64::try_from(target.len()).unwrap_or_default());
    for _ in 0..CASES {
        let mut input = if numbers.below(2) == 0 {
            kept[numbers.below(kept.len())].clone()
        } else {
            // versions of one sample: the later parts are changed twice as often as the first
            let sample = &samples[numbers.below(samples.len())];
            let mut versions = Vec::new();
            for part in 0..parts {
                let mut version = sample.clone();
                for _ in 0..numbers.below(1 + 6 * part) {
                    mutate(&mut version, &samples, &mut numbers);
                }
                versions.push(version);
            }
            versions.join(&[0xff][..])
        };
        for _ in 0..numbers.below(6) {
            mutate(&mut input, &samples, &mut numbers);
        }
        attempt(&input);
    }
}

#[test]
fn parse_holds_its_laws() {
    run("parse", bodies::parse, 1);
}

#[test]
fn diff_holds_its_laws() {
    run("diff", bodies::diff, 2);
}

#[test]
fn merge_holds_its_laws() {
    run("merge", bodies::merge, 3);
}
