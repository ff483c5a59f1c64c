use super::*;
use crate::queue::tests::reads;

#[test]
fn a_poll_finds_sandboxes_for_its_node_and_for_any_in_indexes_of_their_own() {
    for (sql, indexes) in [
        (PLAIN, ["sandbox_requested", "sandbox_pinned "]),
        (ONE_PLAIN, ["sandbox_requested", "sandbox_pinned "]),
        (FIRST_WISH, ["sandbox_by_wish", "sandbox_pinned_by_wish"]),
        (ALL_WISHES, ["sandbox_by_wish", "sandbox_pinned_by_wish"]),
        (WISHED, ["sandbox_by_wish", "sandbox_pinned_by_wish"]),
        (ONE_WISHED, ["sandbox_by_wish", "sandbox_pinned_by_wish"]),
    ] {
        let found = reads(sql, "sandbox");
        assert!(found.len() >= 2, "{found:?}");
        for (read, index) in found.iter().zip(indexes.iter().cycle()) {
            assert!(read.contains(&format!("INDEX {index}")), "{read} {sql}");
        }
    }
}
