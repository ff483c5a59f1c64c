//! Where a job or a sandbox is to be, in both languages.

use api::place::Placement;
use model::place;

pub(crate) fn of(asked: Placement) -> place::Placement {
    place::Placement {
        on: asked.on,
        prefer: asked.prefer,
        location: asked.location,
    }
}

pub(crate) fn view(of: place::Placement) -> Placement {
    Placement {
        on: of.on,
        prefer: of.prefer,
        location: of.location,
    }
}
