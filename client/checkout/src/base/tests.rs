//! Tests of the module above: laws, tables and failure paths.

use std::sync::Arc;

use tempfile::TempDir;
use zyflow_machine::command::{Anchor, NewBlock};
use zyflow_machine::id::{EventId, SessionId};

use super::*;
use crate::path::FilePath;
use crate::plan::SHOWN_STORED_MAX;
use crate::testing::TestSeal;

fn id(number: u64) -> RecordId {
    RecordId(EventId::from_u64(number))
}

fn text(words: &str, revision: u64) -> KnownText {
    let canonical: String = words.split_whitespace().map(|word| format!("- [ ] {word}\n")).collect();
    let blocks = parse(&canonical).blocks.into_iter();
    let blocks = blocks.map(|block| Known { id: id(block.content.text.len().try_into().unwrap()), block });
    KnownText { revision: Revision(revision), blocks: blocks.collect() }
}

fn record() -> Record {
    let mut record = Record::new("a/tasks.md");
    record.show(id(7), text("one three", 5), By::Writer);
    record.show(id(7), text("one three fifteen", 9), By::Us);
    record.intent = Some(Intent { change: id(7), text: text("one", 11) });
    let insert = BlockOp::Insert {
        after: Anchor::Start,
        block: NewBlock { kind: 2, lead: "- [".into(), mark: " ".into(), text: "] x\n".into() },
    };
    record.flight = Some(Flight {
        request: RequestId { session: SessionId(EventId::from_u64(3)), seq: 4 },
        body: Body::Edit {
            change: id(7),
            base: Revision(9),
            mode: zyflow_machine::command::EditMode::Merge,
            ops: vec![insert],
            conflicts: Vec::new(),
        },
        text: Some("- [ ] x\n".to_owned()),
        ids: vec![None],
        displaced: Some("kept-0".to_owned()),
    });
    record.wrote = Some([7; 32]);
    record
}

fn store(dir: &TempDir) -> Store {
    Store::open(dir.path(), "lineage", Arc::new(TestSeal)).unwrap()
}

fn path() -> FilePath {
    FilePath::parse("a/tasks.md").unwrap()
}

#[test]
fn a_record_comes_back_as_it_was() {
    let dir = TempDir::new().unwrap();
    store(&dir).save(&path(), &record()).unwrap();
    let loaded = store(&dir).load().unwrap();
    assert_eq!(loaded.records[&path()], record());
    assert!(loaded.damaged.is_empty());
    store(&dir).remove(&path()).unwrap();
    assert!(store(&dir).load().unwrap().records.is_empty());
}

#[test]
fn no_text_lies_on_the_disk_in_clear() {
    let dir = TempDir::new().unwrap();
    store(&dir).save(&path(), &record()).unwrap();
    let bytes = fs_err::read(dir.path().join("files").join(path().hash())).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"fifteen"));
}

#[test]
fn sixteen_versions_of_a_large_text_cost_little_more_than_one() {
    let words: String = (0..2000).map(|number| format!("task-number-{number:05} ")).collect();
    let mut record = Record::new("tasks.md");
    record.show(id(7), text(&words, 1), By::Writer);
    let one = codec_for_tests::encode(&record).len();
    for version in 0..15 {
        record.show(id(7), text(&format!("{words} v{version}"), version + 2), By::Us);
    }
    assert_eq!(record.shown.len(), SHOWN_STORED_MAX);
    let sixteen = codec_for_tests::encode(&record).len();
    assert!(sixteen < one * 5, "{one} bytes for one, {sixteen} for sixteen");
    assert_eq!(codec_for_tests::decode(&codec_for_tests::encode(&record)), record);
}

#[test]
fn damage_and_other_versions_are_told_apart_and_never_guessed_at() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("files").join(path().hash());
    let reason = |bytes: &[u8]| {
        fs_err::write(&file, bytes).unwrap();
        let loaded = store(&dir).load().unwrap();
        assert!(loaded.records.is_empty());
        match &loaded.damaged[&path().hash()] {
            StoreError::Format { source, .. } => source.to_string(),
            other => panic!("{other}"),
        }
    };
    store(&dir).save(&path(), &record()).unwrap();
    let good = fs_err::read(&file).unwrap();
    assert!(reason(&good[..good.len() - 1]).contains("damaged"));
    assert!(reason(&[]).contains("damaged"));
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    assert!(reason(&flipped).contains("damaged"));
    assert_eq!(reason(&with_version(&good, 4)), "format version 4, and this program knows 2 to 3");
    assert_eq!(reason(&with_version(&good, 1)), "format version 1, and this program knows 2 to 3");
}

/// The same record under another version.
fn with_version(stored: &[u8], version: u16) -> Vec<u8> {
    let mut bytes = stored[..stored.len() - 32].to_vec();
    bytes[..2].copy_from_slice(&version.to_be_bytes());
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn a_record_of_the_version_before_is_read() {
    let mut record = record();
    let before = with_version(&codec_for_tests::encode(&record), 2);
    assert_eq!(codec_for_tests::decode(&before), record);
    record.learn(id(7), text("one two", 12), false);
    assert_eq!(record.shown.last().unwrap().by, By::Found);
    assert_eq!(codec_for_tests::decode(&codec_for_tests::encode(&record)), record);
}

#[test]
fn a_record_in_the_place_of_another_is_refused() {
    let dir = TempDir::new().unwrap();
    store(&dir).save(&path(), &record()).unwrap();
    let other = FilePath::parse("b/tasks.md").unwrap().hash();
    let files = dir.path().join("files");
    fs_err::rename(files.join(path().hash()), files.join(&other)).unwrap();
    let loaded = store(&dir).load().unwrap();
    assert!(loaded.records.is_empty() && loaded.damaged.contains_key(&other));
}

#[test]
fn what_an_interrupted_write_left_is_removed() {
    let dir = TempDir::new().unwrap();
    store(&dir).save(&path(), &record()).unwrap();
    let torn = dir.path().join("files").join(format!("{}.new", path().hash()));
    fs_err::write(&torn, b"half").unwrap();
    assert_eq!(store(&dir).load().unwrap().records[&path()], record());
    assert!(!torn.exists());
}

#[test]
fn a_folder_of_another_lineage_or_project_is_refused() {
    let dir = TempDir::new().unwrap();
    let binding = Binding {
        lineage: "lineage".to_owned(),
        project: "p".to_owned(),
        branch: None,
        head: None,
        is_bound: true,
        asked: std::collections::BTreeSet::new(),
    };
    store(&dir).bind(&binding).unwrap();
    assert_eq!(store(&dir).binding("p").unwrap(), Some(binding));
    assert!(matches!(store(&dir).binding("q"), Err(StoreError::OtherBinding { .. })));
    let other = Store::open(dir.path(), "other", Arc::new(TestSeal)).unwrap();
    assert!(matches!(other.binding("p"), Err(StoreError::OtherBinding { .. })));
}

#[test]
fn the_same_text_again_renews_the_newest_and_old_ones_go() {
    let mut record = Record::new("tasks.md");
    record.show(id(7), text("one", 1), By::Writer);
    record.show(id(7), text("one", 5), By::Us);
    assert_eq!((record.shown.len(), record.shown[0].text.revision), (1, Revision(5)));
    for version in 0..300 {
        record.show(id(7), text(&format!("v{version}"), 6 + version), By::Us);
    }
    assert_eq!(record.shown.len(), SHOWN_MAX);
    let stored = codec_for_tests::decode(&codec_for_tests::encode(&record));
    assert_eq!(stored.shown, record.shown[SHOWN_MAX - SHOWN_STORED_MAX..], "the newest survive a restart");
    record.show(id(8), text("anew", 400), By::Us);
    assert_eq!(record.shown.len(), 1, "texts of another change are no base");
}

#[test]
fn an_intent_counts_as_shown_unless_the_file_is_as_before() {
    let check = |local: Option<&str>| {
        let mut record = record();
        let abandoned = record.settle_intent(local);
        (record.shown.len(), abandoned.is_some(), record.intent.is_none())
    };
    let before = text("one three fifteen", 9).text();
    let after = text("one", 11).text();
    assert_eq!(check(Some(&before)), (2, true, true));
    assert_eq!(check(None), (2, true, true));
    assert_eq!(check(Some(&after)), (3, false, true));
    assert_eq!(check(Some("something else\n")), (3, false, true));
}

/// Whoever emptied the file holds what they had read before, and may never have seen the text that was about to be written.
#[test]
fn an_intent_over_an_emptied_file_counts_as_shown_only_where_it_stands_there() {
    let check = |local: &str| {
        let mut record = Record::new("a/tasks.md");
        record.show(id(7), text("", 9), By::Writer);
        record.intent = Some(Intent { change: id(7), text: text("one three", 11) });
        record.settle_intent(Some(local));
        record.shown.len()
    };
    assert_eq!(check(""), 1);
    assert_eq!(check("- [ ] three\n"), 1);
    assert_eq!(check(&text("one three", 11).text()), 2);
}

#[test]
fn ids_of_an_accepted_text_are_those_it_had_and_those_created() {
    let flight = record().flight.unwrap();
    let named = flight.named_text(&[id(99), id(100)], Revision(12)).unwrap();
    assert_eq!(named.blocks.iter().map(|known| known.id).collect::<Vec<_>>(), [id(99)]);
    assert_eq!(flight.named_text(&[], Revision(12)), None);
    let mut odd = flight;
    odd.ids = vec![None, None];
    assert_eq!(odd.named_text(&[id(99), id(100)], Revision(12)), None);
}
