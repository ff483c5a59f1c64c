//! Pages of lists.

/// Cuts rows, of which one more was read than is shown, to a page. Says where the next one begins, by the last that is
/// shown; nothing on the last page.
pub(crate) fn cut<T, N>(rows: &mut Vec<T>, limit: u32, at: impl FnOnce(&T) -> N) -> Option<N> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    rows.last().filter(|_| more).map(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_begins_only_where_there_is_one() {
        for (rows, shown, next) in [(0, 0, None), (2, 2, None), (3, 2, Some(1))] {
            let mut all: Vec<u32> = (0..rows).collect();
            assert_eq!(cut(&mut all, 2, |last| *last), next);
            assert_eq!(all.len(), shown);
        }
    }
}
