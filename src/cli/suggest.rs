//! Suggestions for misspelt names.

/// Returns the candidate with the fewest edits, if it is similar enough to be what was meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits = candidates.into_iter().map(|candidate| (edits(name, candidate), candidate));
    let (fewest, nearest) = edits.min()?;
    // A third of the letters, so that `tag` is not suggested for `log`.
    (fewest <= (name.chars().count() / 3).max(1)).then_some(nearest)
}

/// Returns the Levenshtein distance, in which `_`, `-` and capital letters make no difference.
fn edits(one: &str, other: &str) -> usize {
    let letters = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let (one, other) = (letters(one), letters(other));
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            line.push(replaced.min(above[column + 1] + 1).min(line[column] + 1));
        }
        above = line;
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_another_word_is_not() {
        let known = ["chunk-size", "retries", "tag", "upload"];
        for (name, meant) in [
            ("chunksize", Some("chunk-size")),
            ("chunk_size", Some("chunk-size")),
            ("Retries", Some("retries")),
            ("uplod", Some("upload")),
            ("tags", Some("tag")),
            ("proxy", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_symmetric_and_zero_only_for_the_same_name(a in "[a-d-]{0,6}", b in "[a-d-]{0,6}") {
            prop_assert_eq!(edits(&a, &b), edits(&b, &a));
            prop_assert_eq!(edits(&a, &b) == 0, a == b);
            prop_assert!(edits(&a, &b) <= a.len().max(b.len()));
        }
    }
}
