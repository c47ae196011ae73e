//! Which items of a reordered sequence stayed, and which moved: the fewest moves are all but a longest increasing subsequence.

/// For a sequence of distinct positions, marks the members of one longest increasing subsequence. Deterministic; `O(n log n)`.
pub(crate) fn stays(positions: &[usize]) -> Vec<bool> {
    // tails[k] = index of the smallest last member of an increasing subsequence of length k + 1
    let mut tails: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = Vec::with_capacity(positions.len());
    for (at, position) in positions.iter().enumerate() {
        let length = tails.partition_point(|tail| positions.get(*tail).is_some_and(|last| last < position));
        previous.push(length.checked_sub(1).and_then(|before| tails.get(before).copied()));
        match tails.get_mut(length) {
            Some(tail) => *tail = at,
            None => tails.push(at),
        }
    }
    let mut stays = vec![false; positions.len()];
    let mut member = tails.last().copied();
    while let Some(at) = member {
        if let Some(stay) = stays.get_mut(at) {
            *stay = true;
        }
        member = previous.get(at).copied().flatten();
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moved(positions: &[usize]) -> Vec<usize> {
        positions.iter().zip(stays(positions)).filter(|(_, stays)| !stays).map(|(position, _)| *position).collect()
    }

    #[test]
    fn one_item_moved_is_one_move() {
        assert_eq!(moved(&[0, 1, 2, 3]), Vec::<usize>::new());
        assert_eq!(moved(&[3, 0, 1, 2]), [3]);
        assert_eq!(moved(&[1, 2, 3, 0]), [0]);
        assert_eq!(moved(&[]), Vec::<usize>::new());
    }

    /// The quadratic definition.
    fn longest(positions: &[usize]) -> usize {
        let mut best: Vec<usize> = Vec::new();
        for (at, position) in positions.iter().enumerate() {
            let before =
                positions.iter().zip(&best).take(at).filter(|(other, _)| *other < position).map(|(_, length)| *length);
            best.push(before.max().unwrap_or(0) + 1);
        }
        best.into_iter().max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn what_stays_is_increasing_and_longest(positions in Just((0..12).collect::<Vec<usize>>()).prop_shuffle()) {
            let kept: Vec<usize> = positions.iter().zip(stays(&positions)).filter(|(_, stays)| *stays).map(|(position, _)| *position).collect();
            prop_assert!(kept.is_sorted());
            prop_assert_eq!(kept.len(), longest(&positions));
        }
    }
}
