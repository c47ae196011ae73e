//! Keys between keys: where a block stands among its siblings, without renumbering anybody.
//!
//! A key is a list of integers, compared like a path (1 < 1.1 < 1.2 < 2), each written so that comparing the bytes compares
//! the integers (O'Neil et al. 2004, "ORDPATHs: insert-friendly XML node labels"). Where there is room the next integer is
//! taken, so a run of N inserts, at an end or after one another in a gap, costs O(log N) bytes a key and not O(N) as halving
//! would; a new level begins only inside a gap of one. Keys are a function of their neighbours alone: the same on every node.
//!
//! ```text
//!   head byte    0x39..=0x3f         0x40..=0xbf      0xc0..=0xc6
//!   integer      below -64           -64..=63         above 63
//!   follow       0x40 - head digits  nothing          head - 0xbf digits     digits in base 255, written as 1..=255
//! ```
//! So no key holds a byte 0, none ends in one, and between any two keys there is another.

use crate::record::OrderKey;

const SINGLE_MIN: i64 = -64;
const SINGLE_MAX: i64 = 63;
const SINGLE_FIRST: u8 = 0x40;
const SINGLE_LAST: u8 = 0xbf;
/// Most digits of one integer: 255^7 fits an `i64` with room, and nobody inserts that often.
const DIGITS_MAX: u8 = 7;
const BASE: i64 = 255;

/// A key strictly between `low` and `high` (`None` = the end on that side), or `None` where `low` isn't below `high` or
/// one of them isn't a key made here.
#[must_use]
pub fn between(low: Option<&[u8]>, high: Option<&[u8]>) -> Option<OrderKey> {
    let path = |key: Option<&[u8]>| key.map_or(Some(None), |key| parse(key).map(Some));
    let (low, high) = (path(low)?, path(high)?);
    let path = match (low, high) {
        (None, None) => vec![0],
        (Some(low), None) => above(&low),
        (None, Some(high)) => below(&[], &high)?,
        (Some(low), Some(high)) if low < high => inside(&low, &high)?,
        (Some(_), Some(_)) => return None,
    };
    let mut key = Vec::with_capacity(path.len() * 2);
    for integer in path {
        write(integer, &mut key);
    }
    Some(OrderKey(key))
}

/// The keys of `count` siblings that are made at once, in order.
#[must_use]
pub fn first(count: usize) -> Vec<OrderKey> {
    let key = |integer| {
        let mut bytes = Vec::with_capacity(4);
        write(integer, &mut bytes);
        OrderKey(bytes)
    };
    (0..count).map(|at| key(i64::try_from(at).unwrap_or(largest()))).collect()
}

/// After `low` and everything that starts with its first integer; or deeper, where that integer is the largest.
fn above(low: &[i64]) -> Vec<i64> {
    match low.split_first() {
        Some((&head, rest)) => match next(head) {
            Some(next) => vec![next],
            None => [vec![head], above(rest)].concat(),
        },
        None => vec![0],
    }
}

/// Before the key that continues `prefix` by `rest`, still within `prefix`. Nothing is before a row of smallest integers, so none is
/// ever made here.
fn below(prefix: &[i64], rest: &[i64]) -> Option<Vec<i64>> {
    let room = rest.iter().position(|&integer| integer > smallest())?;
    let lower = rest[room] - 1;
    let level: &[i64] = if lower > smallest() { &[lower] } else { &[lower, 0] };
    Some([prefix, &rest[..room], level].concat())
}

fn inside(low: &[i64], high: &[i64]) -> Option<Vec<i64>> {
    let shared = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    let (prefix, rest) = low.split_at(shared);
    match (rest.split_first(), high.get(shared)) {
        (Some((&low, deeper)), Some(&high)) => Some(match next(low).filter(|next| *next < high) {
            Some(next) => [prefix, &[next]].concat(),
            None => [prefix, &[low], &above(deeper)].concat(),
        }),
        (None, Some(_)) => below(prefix, &high[shared..]),
        (Some(_) | None, None) => None,
    }
}

fn next(integer: i64) -> Option<i64> {
    (integer < largest()).then(|| integer + 1)
}

/// How many integers have `digits` digits on one side.
fn span(digits: u8) -> i64 {
    BASE.pow(u32::from(digits))
}

fn largest() -> i64 {
    SINGLE_MAX + (1..=DIGITS_MAX).map(span).sum::<i64>()
}

fn smallest() -> i64 {
    SINGLE_MIN - (1..=DIGITS_MAX).map(span).sum::<i64>()
}

fn write(integer: i64, key: &mut Vec<u8>) {
    if let Ok(offset) = u8::try_from(integer - SINGLE_MIN)
        && integer <= SINGLE_MAX
    {
        key.push(SINGLE_FIRST + offset);
        return;
    }
    let is_above = integer > SINGLE_MAX;
    let mut offset = if is_above { integer - SINGLE_MAX - 1 } else { SINGLE_MIN - 1 - integer };
    let mut digits = 1;
    while digits < DIGITS_MAX && offset >= span(digits) {
        offset -= span(digits);
        digits += 1;
    }
    let head = if is_above { SINGLE_LAST + digits } else { SINGLE_FIRST - digits };
    key.push(head);
    let mut rest = if is_above { offset } else { span(digits) - 1 - offset };
    let start = key.len();
    for _ in 0..digits {
        key.push(u8::try_from(rest % BASE + 1).unwrap_or(u8::MAX));
        rest /= BASE;
    }
    key[start..].reverse();
}

/// The integers of a key, or `None` where the bytes aren't what [`write`] makes.
fn parse(mut key: &[u8]) -> Option<Vec<i64>> {
    let mut path = Vec::with_capacity(key.len());
    while let Some((&head, rest)) = key.split_first() {
        let (digits, is_above) = match head {
            SINGLE_FIRST..=SINGLE_LAST => (0, true),
            head if head > SINGLE_LAST => (head - SINGLE_LAST, true),
            head => (SINGLE_FIRST - head, false),
        };
        if digits > DIGITS_MAX {
            return None;
        }
        let (value, rest) = rest.split_at_checked(usize::from(digits))?;
        let value = value.iter().try_fold(0, |sum, &digit| (digit > 0).then(|| sum * BASE + i64::from(digit) - 1))?;
        let shorter = (1..digits).map(span).sum::<i64>();
        path.push(match (digits, is_above) {
            (0, _) => SINGLE_MIN + i64::from(head - SINGLE_FIRST),
            (_, true) => SINGLE_MAX + 1 + shorter + value,
            (_, false) => SINGLE_MIN - 1 - shorter - (span(digits) - 1 - value),
        });
        key = rest;
    }
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(low: Option<&OrderKey>, high: Option<&OrderKey>) -> OrderKey {
        between(low.map(|key| key.0.as_slice()), high.map(|key| key.0.as_slice())).unwrap()
    }

    #[test]
    fn integers_order_as_their_bytes_and_read_back() {
        let steps = [1, 2, 62, 63, 64, 65, 318, 319, 320, 65_344, 65_345, 1 << 40];
        let mut integers: Vec<i64> =
            steps.iter().flat_map(|&step| [step, -step]).chain([0, largest(), smallest()]).collect();
        integers.sort_unstable();
        let mut before = Vec::new();
        for integer in integers {
            let mut bytes = Vec::new();
            write(integer, &mut bytes);
            assert_eq!(parse(&bytes), Some(vec![integer]), "{bytes:x?}");
            assert!(before < bytes, "{integer} does not order after the one before it");
            before = bytes;
        }
    }

    #[test]
    fn appended_and_prepended_keys_grow_with_the_logarithm() {
        let (mut last, mut front) = (key(None, None), key(None, None));
        for _ in 0..100_000 {
            last = key(Some(&last), None);
            front = key(None, Some(&front));
        }
        assert!(last.0.len() <= 4 && front.0.len() <= 4, "{last:x?} {front:x?}");
    }

    #[test]
    fn a_run_in_a_gap_grows_with_the_logarithm() {
        let keys = first(2);
        let (mut chain, mut pushed) = (keys[0].clone(), keys[1].clone());
        for _ in 0..100_000 {
            chain = key(Some(&chain), Some(&keys[1]));
        }
        for _ in 0..100_000 {
            pushed = key(Some(&chain), Some(&pushed));
        }
        assert!(chain.0.len() <= 6 && pushed.0.len() <= 10, "{chain:x?} {pushed:x?}");
    }

    #[test]
    fn a_gap_at_the_end_of_the_integers_still_has_room() {
        let end = |integer| {
            let mut bytes = Vec::new();
            write(integer, &mut bytes);
            OrderKey(bytes)
        };
        let (top, bottom) = (end(largest()), end(smallest() + 1));
        assert!(key(Some(&top), None) > top);
        let lower = key(None, Some(&bottom));
        assert!(lower < bottom);
        assert!(key(None, Some(&lower)) < lower);
        assert_eq!(between(None, Some(&end(smallest()).0)), None);
    }

    #[test]
    fn neighbours_in_the_wrong_order_or_of_other_making_have_no_key_between() {
        assert_eq!(between(Some(&[0x81]), Some(&[0x80])), None);
        assert_eq!(between(Some(&[0x80]), Some(&[0x80])), None);
        assert_eq!(between(Some(&[]), None), None);
        assert_eq!(between(Some(&[0x80, 0]), None), None);
        assert_eq!(between(Some(&[0xff, 1]), None), None);
        assert_eq!(between(Some(&[0xc1, 1]), None), None);
    }

    proptest! {
        #[test]
        fn a_new_key_lies_strictly_between_and_never_ends_in_zero(places in prop::collection::vec(any::<prop::sample::Index>(), 1..300)) {
            let mut keys: Vec<OrderKey> = Vec::new();
            for place in places {
                let at = place.index(keys.len() + 1);
                let new = key(at.checked_sub(1).map(|low| &keys[low]), keys.get(at));
                prop_assert!(!new.0.contains(&0) && !new.0.is_empty());
                keys.insert(at, new);
                prop_assert!(keys.is_sorted_by(|low, high| low < high), "{:x?}", keys);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(low in prop::collection::vec(any::<u8>(), 0..6), high in prop::collection::vec(any::<u8>(), 0..6)) {
            if let Some(new) = between(Some(&low), Some(&high)) {
                prop_assert!(low < new.0 && new.0 < high);
            }
        }
    }
}
