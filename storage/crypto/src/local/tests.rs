//! Tests of the module above: laws, tables and failure paths.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::*;
use crate::{DataKey, KeyId};

fn key() -> LocalKey {
    LocalKey::new(&[9; KEY_BYTES], RECORDS_PER_EPOCH_MAX).unwrap()
}

fn ring(id: u32, byte: u8) -> KeyRing {
    KeyRing::new(DataKey::new(KeyId(id), Zeroizing::new([byte; 32])))
}

fn epoch_of(sealed: &[u8]) -> EpochId {
    sealed[1..][..EPOCH_BYTES].try_into().unwrap()
}

#[test]
fn records_of_every_length_round_trip() {
    let key = key();
    for length in [0, 1, 15, 16, 17, 256, 4096, 100_000] {
        let plaintext = vec![0x5a; length];
        let sealed = key.seal(b"rows/1", &plaintext).unwrap();
        assert_eq!(sealed.len(), length + OVERHEAD_BYTES);
        assert_eq!(key.open(b"rows/1", &sealed).unwrap(), plaintext);
    }
}

#[test]
fn the_same_text_never_seals_to_the_same_bytes() {
    let key = key();
    let sealed: BTreeSet<Vec<u8>> = (0..100).map(|_| key.seal(b"", b"text").unwrap()).collect();
    assert_eq!(sealed.len(), 100);
    let epochs: BTreeSet<EpochId> = sealed.iter().map(|sealed| epoch_of(sealed)).collect();
    assert_eq!(epochs.len(), 1, "one epoch until it is full");
}

#[test]
fn another_context_or_another_node_is_refused() {
    let sealed = key().seal(b"rows/1", b"text").unwrap();
    assert!(matches!(key().open(b"rows/2", &sealed), Err(LocalKeyError::Authentication)));
    let other = LocalKey::new(&[8; KEY_BYTES], RECORDS_PER_EPOCH_MAX).unwrap();
    assert!(matches!(other.open(b"rows/1", &sealed), Err(LocalKeyError::Authentication)));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let key = key();
    let sealed = key.seal(b"rows/1", b"small").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(key.open(b"rows/1", &flipped).is_err(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(key.open(b"rows/1", &sealed[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn a_full_epoch_is_followed_by_another_and_both_open() {
    let key = LocalKey::new(&[9; KEY_BYTES], 3).unwrap();
    let sealed: Vec<Vec<u8>> = (0..7).map(|_| key.seal(b"", b"text").unwrap()).collect();
    let mut per_epoch: BTreeMap<EpochId, usize> = BTreeMap::new();
    for sealed in &sealed {
        *per_epoch.entry(epoch_of(sealed)).or_default() += 1;
        assert_eq!(key.open(b"", sealed).unwrap(), b"text");
    }
    let mut counts: Vec<usize> = per_epoch.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 3, 3]);
}

#[test]
fn threads_never_overfill_an_epoch() {
    let key = LocalKey::new(&[9; KEY_BYTES], 5).unwrap();
    let sealed: Vec<Vec<u8>> = thread::scope(|scope| {
        let seal_many = || (0..200).map(|_| key.seal(b"", b"text").unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal_many)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut per_epoch: BTreeMap<EpochId, usize> = BTreeMap::new();
    for sealed in &sealed {
        *per_epoch.entry(epoch_of(sealed)).or_default() += 1;
        assert_eq!(key.open(b"", sealed).unwrap(), b"text");
    }
    assert!(per_epoch.values().all(|count| *count <= 5), "{per_epoch:?}");
}

#[test]
fn the_cache_of_epochs_stays_bounded_and_forgotten_ones_still_open() {
    let key = LocalKey::new(&[9; KEY_BYTES], 1).unwrap();
    let sealed: Vec<Vec<u8>> = (0..2 * EPOCHS_CACHED_MAX).map(|_| key.seal(b"", b"text").unwrap()).collect();
    for _ in 0..2 {
        for sealed in &sealed {
            assert_eq!(key.open(b"", sealed).unwrap(), b"text");
            assert!(key.opened.load().len() <= EPOCHS_CACHED_MAX);
        }
    }
}

#[test]
fn too_long_a_record_is_refused_both_ways() {
    let key = key();
    let long = vec![0; PLAINTEXT_BYTES_MAX + 1];
    assert!(matches!(key.seal(b"", &long), Err(LocalKeyError::TooLarge { .. })));
    let long = vec![FORMAT; OVERHEAD_BYTES + PLAINTEXT_BYTES_MAX + 1];
    assert!(matches!(key.open(b"", &long), Err(LocalKeyError::TooLarge { .. })));
}

#[test]
fn the_node_key_survives_a_restart_sealed_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let sealed = LocalKey::create_or_load(&path, &ring(1, 1)).unwrap().seal(b"rows/1", b"text").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(&path).unwrap().len(), envelope::OVERHEAD_BYTES + KEY_BYTES);

    let again = LocalKey::create_or_load(&path, &ring(1, 1)).unwrap();
    assert_eq!(again.open(b"rows/1", &sealed).unwrap(), b"text");
    assert_ne!(epoch_of(&again.seal(b"rows/1", b"text").unwrap()), epoch_of(&sealed), "each start has its own epoch");
}

#[test]
fn a_node_key_that_does_not_open_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    LocalKey::create_or_load(&path, &ring(1, 1)).unwrap();
    let before = fs::read(&path).unwrap();
    let unwrap_error = |ring: &KeyRing| match LocalKey::create_or_load(&path, ring) {
        Err(LocalKeyError::Unwrap { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(unwrap_error(&ring(2, 1)), OpenError::UnknownKey { id: KeyId(1) });
    assert_eq!(unwrap_error(&ring(1, 2)), OpenError::Commitment { id: KeyId(1) });
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let error = LocalKey::create_or_load(&path, &ring(1, 1)).unwrap_err();
    assert!(matches!(error, LocalKeyError::File(PrivateFileError::Mode { .. })), "{error}");

    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"").unwrap();
    assert_eq!(unwrap_error(&ring(1, 1)), OpenError::Truncated { bytes: 0 });
}

/// See tests/fixtures/README.md: frozen, and made by other code than ours.
#[test]
fn a_frozen_record_opens() {
    let frozen: Vec<u8> = include_str!("../../tests/fixtures/local-v1.hex")
        .trim()
        .as_bytes()
        .chunks(2)
        .flat_map(|pair| crate::hex::decode::<1>(str::from_utf8(pair).unwrap()).unwrap())
        .collect();
    let mut secret = [0; KEY_BYTES];
    for (byte, value) in secret.iter_mut().zip(0..) {
        *byte = value;
    }
    let key = LocalKey::new(&secret, RECORDS_PER_EPOCH_MAX).unwrap();
    assert_eq!(key.open(b"rows/1", &frozen).unwrap(), b"- [x] 1.1 A frozen row\n");
}
