//! Tests of the module above: laws, tables and failure paths.

use zeroize::Zeroizing;

use super::*;
use crate::DataKey;

const LINEAGE: Lineage = Lineage([0x11; 16]);
const ENTRY: [u8; 16] = [0x22; 16];

fn key(id: u32, byte: u8) -> DataKey {
    DataKey::new(KeyId(id), Zeroizing::new([byte; 32]))
}

fn ring() -> KeyRing {
    KeyRing::new(key(1, 0xaa))
}

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    seal(&ring(), Purpose::Entry, &LINEAGE, &ENTRY, plaintext).unwrap()
}

fn opened(sealed: &[u8]) -> Result<Opened, OpenError> {
    open(&ring(), Purpose::Entry, &LINEAGE, sealed)
}

#[test]
fn plaintexts_of_every_length_round_trip() {
    for length in [0, 1, 15, 16, 17, 256, 4096, PLAINTEXT_BYTES_MAX] {
        let plaintext = vec![0x5a; length];
        let sealed = sealed(&plaintext);
        assert_eq!(sealed.len(), length + OVERHEAD_BYTES);
        let opened = opened(&sealed).unwrap();
        assert!(opened.plaintext == plaintext && opened.entry_id == ENTRY && opened.key_id == KeyId(1), "{length}");
    }
}

#[test]
fn two_seals_of_one_plaintext_share_no_random_part() {
    let (one, two) = (sealed(b"text"), sealed(b"text"));
    let (one, two) = (Envelope::parse(&one).unwrap(), Envelope::parse(&two).unwrap());
    assert_ne!(one.salt, two.salt);
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.commitment, two.commitment);
    assert_ne!(one.ciphertext, two.ciphertext);
}

#[test]
fn every_flipped_bit_is_refused_by_the_check_that_covers_it() {
    let sealed = sealed(b"small");
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = opened(&flipped).expect_err("a flipped bit");
        let covered = match bit / 8 {
            0..3 => matches!(error, OpenError::UnknownFormat { .. }),
            3..7 => matches!(error, OpenError::UnknownKey { .. }),
            7..39 | 51..83 => matches!(error, OpenError::Commitment { .. }),
            _ => matches!(error, OpenError::Authentication { .. }),
        };
        assert!(covered, "bit {bit}: {error}");
    }
}

#[test]
fn cut_short_at_every_length_is_refused() {
    let sealed = sealed(b"small");
    for bytes in 0..sealed.len() {
        let error = opened(&sealed[..bytes]).expect_err("a cut");
        if bytes < OVERHEAD_BYTES {
            assert_eq!(error, OpenError::Truncated { bytes });
        } else {
            assert!(matches!(error, OpenError::Authentication { .. }), "{bytes}: {error}");
        }
    }
    let mut longer = sealed;
    longer.push(0);
    assert!(matches!(opened(&longer), Err(OpenError::Authentication { .. })));
}

#[test]
fn another_lineage_is_refused() {
    let error = open(&ring(), Purpose::Entry, &Lineage([0x12; 16]), &sealed(b"text")).unwrap_err();
    assert_eq!(error, OpenError::Authentication { id: KeyId(1), lineage: Lineage([0x12; 16]) });
}

#[test]
fn another_purpose_is_refused() {
    for purpose in [Purpose::SnapshotChunk, Purpose::NodeKey] {
        let error = open(&ring(), purpose, &LINEAGE, &sealed(b"text")).unwrap_err();
        assert_eq!(error, OpenError::Commitment { id: KeyId(1) });
    }
}

#[test]
fn another_entry_id_is_refused() {
    let (mut one, two) = (sealed(b"text"), seal(&ring(), Purpose::Entry, &LINEAGE, &[0x23; 16], b"text").unwrap());
    one[83..99].copy_from_slice(&two[83..99]);
    assert!(matches!(opened(&one), Err(OpenError::Authentication { .. })));
}

#[test]
fn an_unknown_key_and_a_wrong_key_of_the_same_id_are_told_apart() {
    let sealed = sealed(b"text");
    let under = |key| open(&KeyRing::new(key), Purpose::Entry, &LINEAGE, &sealed).unwrap_err();
    assert_eq!(under(key(2, 0xaa)), OpenError::UnknownKey { id: KeyId(1) });
    assert_eq!(under(key(1, 0xbb)), OpenError::Commitment { id: KeyId(1) });
}

#[test]
fn a_retired_key_opens_and_the_active_one_seals() {
    let ring = KeyRing::new(key(2, 0xbb)).with_retired(key(1, 0xaa));
    assert_eq!(open(&ring, Purpose::Entry, &LINEAGE, &sealed(b"text")).unwrap().key_id, KeyId(1));
    let sealed = seal(&ring, Purpose::Entry, &LINEAGE, &ENTRY, b"text").unwrap();
    assert_eq!(open(&ring, Purpose::Entry, &LINEAGE, &sealed).unwrap().key_id, KeyId(2));
}

#[test]
fn lengths_over_the_limit_are_refused_both_ways() {
    let bytes = PLAINTEXT_BYTES_MAX + 1;
    let error = seal(&ring(), Purpose::Entry, &LINEAGE, &ENTRY, &vec![0; bytes]).unwrap_err();
    assert!(matches!(error, SealError::TooLarge { bytes: found } if found == bytes), "{error}");
    let mut long = sealed(b"");
    long.resize(OVERHEAD_BYTES + bytes, 0);
    assert_eq!(opened(&long), Err(OpenError::TooLarge { bytes: OVERHEAD_BYTES + bytes }));
}

#[test]
fn a_later_format_is_named_even_when_it_is_shorter() {
    let error = opened(&[b'Z', 2, 1]).unwrap_err();
    assert_eq!(error, OpenError::UnknownFormat { magic: b'Z', format: 2, algorithm: 1 });
    assert!(error.to_string().contains("upgraded"), "{error}");
}

/// See tests/fixtures/README.md: frozen, and made by other code than ours.
#[test]
fn frozen_records_open_and_seal_again_to_the_same_bytes() {
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, value) in secret.iter_mut().zip(0..) {
        *byte = value;
    }
    let ring = KeyRing::new(DataKey::new(KeyId(2_864_434_397), secret));
    let lineage: Lineage = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    let fixtures = [
        (Purpose::Entry, "entry", include_str!("../../tests/fixtures/envelope-v1-entry.hex")),
        (Purpose::SnapshotChunk, "snapshot-chunk", include_str!("../../tests/fixtures/envelope-v1-snapshot-chunk.hex")),
        (Purpose::NodeKey, "node-key", include_str!("../../tests/fixtures/envelope-v1-node-key.hex")),
    ];
    for (purpose, name, frozen) in fixtures {
        let frozen: Vec<u8> = frozen
            .trim()
            .as_bytes()
            .chunks(2)
            .flat_map(|pair| hex::decode::<1>(str::from_utf8(pair).unwrap()).unwrap())
            .collect();
        let opened = open(&ring, purpose, &lineage, &frozen).unwrap();
        assert_eq!(opened.plaintext, format!("- [x] 1.1 A frozen {name}\n").as_bytes());
        assert_eq!(hex::encode(&opened.entry_id), "018f4e2a7b3c7def8123456789abcdef");
        let parsed = Envelope::parse(&frozen).unwrap();
        let again = seal_with(&ring, purpose, &lineage, parsed.entry_id, &opened.plaintext, parsed.salt, *parsed.nonce);
        assert_eq!(again, frozen, "{name}");
    }
}

#[test]
fn nothing_shows_contents_in_debug_output() {
    let shown = format!("{:?}", opened(&sealed(b"secret text")).unwrap());
    assert!(shown.contains("plaintext_bytes: 11") && !shown.contains("115, 101, 99"), "{shown}");
}

#[test]
fn a_lineage_reads_what_it_shows() {
    let lineage = Lineage::mint().unwrap();
    assert_ne!(lineage, Lineage::mint().unwrap());
    let shown = lineage.to_string();
    assert_eq!(shown.parse(), Ok(lineage));
    assert_eq!(shown.replace('-', "").parse(), Ok(lineage));
    assert_eq!(&shown[14..15], "4", "a version 4 uuid: {shown}");
    for bad in [
        "",
        "6ba7b810",
        &shown[1..],
        &format!("{shown}0"),
        &shown.replace('-', "0"),
        "6ba7b8109-dad-41d1-80b4-00c04fd430c8",
    ] {
        assert!(bad.parse::<Lineage>().is_err(), "{bad}");
    }
}
