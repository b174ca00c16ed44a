//! What is seen of a cache that is filled up to a number of keys.

use std::ops::Range;

/// From the first key that is seen to that of the last query, and whether some between are hidden. None
/// where the keys of the queries are not there, or a query sees no key: all of them are its mean then.
pub(crate) fn range(
    rows: &[Vec<bool>],
    offset: i64,
    queries: usize,
) -> Option<(Range<usize>, bool)> {
    let offset = usize::try_from(offset).ok()?;
    let end = offset.checked_add(queries)?;
    let mut start = end;
    for row in rows {
        let first = row.get(..end)?.iter().position(|seen| *seen)?;
        if first > offset {
            return None;
        }
        start = start.min(first);
    }
    let gaps = rows.iter().any(|row| row[start..end].contains(&false));
    Some((start..end, gaps))
}

/// The number in the bytes of an integer; one of u64 that is too large is negative.
pub(crate) fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|last| *last > 127);
    let mut wide = if negative { [255; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

/// Whether a key is there, for each row of a mask of so many.
pub(crate) fn rows(mask: &[u8], keys: usize, width: usize) -> Vec<Vec<bool>> {
    let is_there = |key: &[u8]| key.iter().any(|byte| *byte != 0);
    let row = |row: &[u8]| row.chunks_exact(width).map(is_there).collect();
    mask.chunks_exact((keys * width).max(1)).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::range;

    fn rows<const N: usize>(masks: [&str; N]) -> Vec<Vec<bool>> {
        let row = |mask: &str| mask.chars().map(|key| key == '1').collect();
        masks.into_iter().map(row).collect()
    }

    #[test]
    fn keys_that_nobody_sees_are_left_out() {
        // Behind the query, and what stands there does not matter.
        assert_eq!(range(&rows(["11110000"]), 3, 1), Some((0..4, false)));
        assert_eq!(range(&rows(["11111011"]), 3, 1), Some((0..4, false)));
        assert_eq!(range(&rows(["11110000"]), 0, 4), Some((0..4, false)));
        assert_eq!(range(&rows(["11111111"]), 7, 1), Some((0..8, false)));
        // Before the first.
        assert_eq!(range(&rows(["00110000"]), 3, 1), Some((2..4, false)));
        assert_eq!(range(&rows(["0110", "0110"]), 1, 2), Some((1..3, false)));
    }

    #[test]
    fn gaps_need_a_mask() {
        assert_eq!(range(&rows(["1010"]), 2, 1), Some((0..3, true)));
        assert_eq!(range(&rows(["1100"]), 2, 1), Some((0..3, true)));
        assert_eq!(range(&rows(["0011", "0111"]), 3, 1), Some((1..4, true)));
        assert_eq!(range(&rows(["1110"]), 1, 3), Some((0..4, true)));
    }

    #[test]
    fn all_keys_stay_where_a_query_sees_none_or_has_none() {
        assert_eq!(range(&rows(["0011"]), 0, 4), None);
        assert_eq!(range(&rows(["0011"]), 1, 1), None);
        assert_eq!(range(&rows(["1111", "0000"]), 3, 1), None);
        assert_eq!(range(&rows(["1111"]), 4, 1), None);
        assert_eq!(range(&rows(["1111"]), -1, 1), None);
        assert_eq!(range(&rows(["1111"]), i64::MAX, 1), None);
    }
}
