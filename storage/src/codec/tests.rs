//! Laws of the codec: round trip, one encoding per value, no panic on any bytes, and the frozen bytes of format 1.

use proptest::prelude::*;

use super::*;

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new_term_index(term, index))
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| {
        if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
    })
}

fn membership() -> impl Strategy<Value = Membership> {
    let config = prop::collection::btree_set(0..9u64, 1..5);
    let api = prop_oneof![Just(String::new()), "[a-z0-9.:é]{0,20}"];
    let nodes = prop::collection::btree_map(0..12u64, ("[a-z0-9.:é]{0,20}", api), 0..6);
    (prop::collection::vec(config, 0..3), nodes).prop_map(|(configs, nodes)| {
        let mut nodes: BTreeMap<u64, NodeInfo> =
            nodes.into_iter().map(|(id, (address, api))| (id, NodeInfo { address, api })).collect();
        for id in configs.iter().flatten() {
            nodes.entry(*id).or_default();
        }
        Membership::new(configs, nodes).unwrap()
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| EntryPayload::Normal(Payload(bytes.into()))),
        membership().prop_map(EntryPayload::Membership),
    ];
    (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    encode(&mut out);
    out.into()
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(id in log_id(), vote in vote(), membership in membership(), entry in entry()) {
        prop_assert_eq!(decode_log_id(&encoded(|out| encode_log_id(&id, out))).unwrap(), id);
        for id in [None, Some(id)] {
            prop_assert_eq!(decode_optional_log_id(&encoded(|out| encode_optional_log_id(id.as_ref(), out))).unwrap(), id);
            let stored = StoredMembership::new(id, membership.clone());
            prop_assert_eq!(decode_stored_membership(&encoded(|out| encode_stored_membership(&stored, out))).unwrap(), stored);
        }
        prop_assert_eq!(decode_vote(&encoded(|out| encode_vote(&vote, out))).unwrap(), vote);
        prop_assert_eq!(&decode_membership(&encoded(|out| encode_membership(&membership, out))).unwrap(), &membership);
        prop_assert_eq!(decode_entry(&encoded(|out| encode_entry(&entry, out))).unwrap(), entry);
        for removed in [BTreeSet::new(), BTreeSet::from([id.index])] {
            let roster = Roster { membership: membership.clone(), removed };
            prop_assert_eq!(decode_roster(&encoded(|out| encode_roster(&roster, out))).unwrap(), roster);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_the_one_encoding_of_their_value(mut bytes in prop::collection::vec(any::<u8>(), 0..80), version in 0..4u8) {
        if version > 0 {
            bytes.insert(0, version);
        }
        let bytes = Bytes::from(bytes);
        if let Ok(value) = decode_vote(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_vote(&value, out)), &bytes);
        }
        if let Ok(value) = decode_log_id(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_log_id(&value, out)), &bytes);
        }
        if let Ok(value) = decode_optional_log_id(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_optional_log_id(value.as_ref(), out)), &bytes);
        }
        if let Ok(value) = decode_entry(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_entry(&value, out)), &bytes);
        }
        if let Ok(value) = decode_membership(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_membership(&value, out)), &bytes);
        }
        if let Ok(value) = decode_stored_membership(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_stored_membership(&value, out)), &bytes);
        }
        if let Ok(value) = decode_roster(&bytes) {
            prop_assert_eq!(&encoded(|out| encode_roster(&value, out)), &bytes);
        }
    }

    #[test]
    fn a_changed_or_cut_message_never_panics(entry in entry(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(value) = decode_entry(&Bytes::from(bytes.clone())) {
            prop_assert_eq!(encoded(|out| encode_entry(&value, out)), Bytes::from(bytes));
        }
    }
}

#[test]
fn format_1_is_frozen() {
    let nodes = BTreeMap::from([(1, NodeInfo::at("a:1")), (300, NodeInfo::default())]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    let id = LogId::new_term_index(3, 300);
    let entry = |payload| Entry { log_id: id, payload };
    let sealed = EntryPayload::Normal(Payload(Bytes::from_static(b"\xff\x00")));
    assert_eq!(&encoded(|out| encode_vote(&Vote::new_committed(3, 200), out))[..], [1, 3, 0xc8, 1, 1]);
    assert_eq!(&encoded(|out| encode_log_id(&id, out))[..], [1, 3, 0xac, 2]);
    assert_eq!(&encoded(|out| encode_optional_log_id(None, out))[..], [1, 0]);
    assert_eq!(&encoded(|out| encode_entry(&entry(EntryPayload::Blank), out))[..], [1, 3, 0xac, 2, 0]);
    assert_eq!(&encoded(|out| encode_entry(&entry(sealed), out))[..], [1, 3, 0xac, 2, 1, 0xff, 0]);
    assert_eq!(
        &encoded(|out| encode_entry(&entry(EntryPayload::Membership(membership)), out))[..],
        [1, 3, 0xac, 2, 2, 1, 1, 1, 2, 1, 3, b'a', b':', b'1', 0xac, 2, 0]
    );
}

#[test]
fn memberships_with_api_addresses_and_rosters_are_frozen() {
    let plain = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, NodeInfo::at("a:1"))])).unwrap();
    let node = NodeInfo { address: "a:1".into(), api: "a:2".into() };
    let api = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap();
    let with_api = [1, 1, 1, 1, 1, 3, b'a', b':', b'1', 3, b'a', b':', b'2'];
    assert_eq!(encoded(|out| encode_membership(&api, out))[..], [&[2][..], &with_api].concat());
    let stored = StoredMembership::new(Some(LogId::new_term_index(3, 4)), api.clone());
    assert_eq!(encoded(|out| encode_stored_membership(&stored, out))[..], [&[2, 1, 3, 4][..], &with_api].concat());
    let entry = Entry { log_id: LogId::new_term_index(3, 4), payload: EntryPayload::Membership(api) };
    assert_eq!(encoded(|out| encode_entry(&entry, out))[..], [&[1, 3, 4, 3][..], &with_api].concat());
    let roster = |removed| Roster { membership: plain.clone(), removed };
    let whole = [1, 1, 1, 1, 1, 1, 3, b'a', b':', b'1'];
    assert_eq!(encoded(|out| encode_roster(&roster(BTreeSet::new()), out))[..], whole);
    let left = [3, 1, 1, 1, 1, 1, 3, b'a', b':', b'1', 0, 2, 2, 0xac, 2];
    assert_eq!(encoded(|out| encode_roster(&roster(BTreeSet::from([2, 300])), out))[..], left);
    // One value, one encoding: what a lower version can hold isn't read in a higher one.
    let plain_as_api = [2, 1, 1, 1, 1, 1, 3, b'a', b':', b'1', 0];
    assert_eq!(decode_membership(&plain_as_api), Err(CodecError::Invalid { what: "the version of a membership" }));
    let nobody = [3, 1, 1, 1, 1, 1, 3, b'a', b':', b'1', 0, 0];
    assert_eq!(decode_roster(&nobody), Err(CodecError::Invalid { what: "the number of removed nodes" }));
}

#[test]
fn each_kind_of_damage_has_its_error() {
    assert_eq!(decode_vote(&[]), Err(CodecError::Truncated { what: "a vote" }));
    assert_eq!(decode_vote(&[2, 1, 1, 1]), Err(CodecError::Version { what: "a vote", found: 2 }));
    assert_eq!(decode_vote(&[1, 1, 1, 2]), Err(CodecError::Invalid { what: "the flag of a vote" }));
    assert_eq!(decode_vote(&[1, 1, 1, 1, 0]), Err(CodecError::Trailing { what: "a vote", count: 1 }));
    assert_eq!(decode_log_id(&[1, 0x80, 0, 1]), Err(CodecError::Invalid { what: "the term of a log id" }));
    let overflow = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0];
    assert_eq!(decode_log_id(&overflow), Err(CodecError::Invalid { what: "the term of a log id" }));
    let voter_without_node = decode_membership(&[1, 1, 1, 7, 0]);
    assert!(matches!(voter_without_node, Err(CodecError::Membership { .. })), "{voter_without_node:?}");
    let huge_count = decode_membership(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(huge_count, Err(CodecError::Truncated { what: "the number of voter sets" }));
}
