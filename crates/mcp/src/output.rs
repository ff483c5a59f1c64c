//! `output_read`: what was left out of an answer.

use api::Code;
use std::ops::ControlFlow;

use crate::answer::{Answer, OutputPage};
use crate::args;
use crate::bound::{PAGE_BYTES, Page, page};
use crate::call::Hand;
use crate::cursor::{Cursor, Of};
use crate::refusal::Refusal;
use crate::run::name;

pub(crate) async fn read(hand: &Hand<'_>, args: args::OutputRead) -> Result<Answer, Refusal> {
    let gone = || {
        Refusal::new(Code::NotFound, "nothing is kept for this cursor")
            .hint("run the command again with its output in a file, and read that with file_read")
    };
    let cursor: Cursor = args.cursor.parse().map_err(|_| gone())?;
    let page = match &cursor.of {
        Of::Kept { name } => {
            let kept = hand.call.tools.shelf().get(name).ok_or_else(gone)?;
            page(&kept, cursor.at, PAGE_BYTES)
        }
        Of::Job { .. } => hand.unless_canceled(of_job(hand, &cursor)).await?,
    };
    let next = page.next.map(|at| {
        let of = cursor.of.clone();
        Cursor { of, at }.to_string()
    });
    let more = match &next {
        Some(next) => format!("\n--- more: output_read with cursor {next} ---"),
        None => "\n--- end ---".to_owned(),
    };
    let value = OutputPage {
        text: page.text,
        cursor: next,
    };
    Ok(Answer::new(format!("{}{more}", value.text), &value))
}

/// A page of what a job wrote. The server asks each time whose it is.
async fn of_job(hand: &Hand<'_>, cursor: &Cursor) -> Result<Page, Refusal> {
    let Of::Job { id, stream } = &cursor.of else {
        return Err(Refusal::new(Code::Internal, "the cursor is not of a job"));
    };
    let mut download = hand.client().job_logs_raw(id, name(*stream)).await?;
    let mut part = Part::from(cursor.at, PAGE_BYTES + 4);
    while let Some(bytes) = download.chunk().await? {
        if part.push(&bytes).is_break() {
            break;
        }
    }
    let Page { text, next } = page(&part.bytes, 0, PAGE_BYTES);
    let next = next.map(|end| end.saturating_add(cursor.at));
    Ok(Page { text, next })
}

/// Takes a part out of bytes that come one after the other.
#[derive(Debug)]
pub(crate) struct Part {
    skip: usize,
    most: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Part {
    pub(crate) fn from(skip: usize, most: usize) -> Self {
        Self {
            skip,
            most,
            bytes: Vec::new(),
        }
    }

    /// Takes what is wanted of the next bytes, and says when nothing more is.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let room = self.most.saturating_sub(self.bytes.len());
        let wanted = bytes.get(skipped..).unwrap_or_default();
        let wanted = wanted.get(..room.min(wanted.len())).unwrap_or_default();
        self.bytes.extend_from_slice(wanted);
        if self.bytes.len() >= self.most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_part_is_the_same_however_the_bytes_come(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            skip in 0_usize..60, most in 1_usize..20,
        ) {
            let mut part = Part::from(skip, most);
            for piece in &pieces {
                if part.push(piece).is_break() {
                    break;
                }
            }
            let all: Vec<u8> = pieces.concat();
            let expect: Vec<u8> = all.into_iter().skip(skip).take(most).collect();
            prop_assert_eq!(part.bytes, expect);
        }
    }
}
