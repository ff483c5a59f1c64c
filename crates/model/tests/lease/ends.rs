//! That no job is lost: from wherever the story is, it goes on to an end without another fault and without anybody's
//! wish. A promise that nothing bad happens is kept by whoever does nothing; this one is not.
//!
//! All states within the boundary are kept, with the steps between them, and what leads to an end is looked for from
//! the ends backwards.

use crate::story::Action;
use crate::world::{Asked, Rules, World};
use model::job::JobState;
use stateright::Model as _;
use std::collections::HashMap;
use std::rc::Rc;

/// Every state that there is, and the steps that lead to it.
pub(crate) struct Graph {
    rules: Rules,
    worlds: Vec<Rc<World>>,
    known: HashMap<Rc<World>, usize>,
    /// For each, from where a step that is no fault leads to it, and whether a silent node has to take it.
    before: Vec<Vec<(usize, bool)>>,
}

impl Graph {
    pub(crate) fn of(rules: Rules) -> Graph {
        let mut graph = Graph {
            rules,
            worlds: Vec::new(),
            known: HashMap::new(),
            before: Vec::new(),
        };
        for world in rules.init_states() {
            graph.place(world);
        }
        let mut from = 0;
        while let Some(world) = graph.worlds.get(from).cloned() {
            let mut actions = Vec::new();
            rules.actions(&world, &mut actions);
            for action in actions {
                let next = rules.next_state(&world, action);
                if let Some(next) = next.filter(|next| rules.within_boundary(next)) {
                    let to = graph.place(next);
                    if comes_by_itself(action) {
                        graph.before[to].push((from, is_of_silent(&world, action)));
                    }
                }
            }
            from += 1;
        }
        graph
    }

    /// Its number, whether it was there before or not.
    fn place(&mut self, world: World) -> usize {
        if let Some(at) = self.known.get(&world) {
            return *at;
        }
        let (at, world) = (self.worlds.len(), Rc::new(world));
        self.known.insert(world.clone(), at);
        self.worlds.push(world);
        self.before.push(Vec::new());
        at
    }

    pub(crate) fn states(&self) -> usize {
        self.worlds.len()
    }

    /// From where a job does not come to an outcome, if no node that is silent is ever heard again.
    pub(crate) fn lost(&self) -> Vec<&World> {
        let is_end = |world: &World| {
            let waits = world.row.state == JobState::Queued;
            let has_nobody = world.nodes.iter().all(|node| node.is_silent);
            world.row.state.outcome().is_some() || (waits && has_nobody) || self.goes_on(world)
        };
        self.stuck(|is_of_silent| !is_of_silent, is_end)
    }

    /// From where a job does not come to an outcome, or a node does not forget it, if all are heard again.
    pub(crate) fn remembered(&self) -> Vec<&World> {
        let is_end = |world: &World| {
            let is_over = world.row.state.outcome().is_some();
            (is_over && world.nodes.iter().all(|node| node.held.is_none())) || self.goes_on(world)
        };
        self.stuck(|_| true, is_end)
    }

    /// It waits for a lease more than the story has, and begins anew with that.
    fn goes_on(&self, world: &World) -> bool {
        world.row.state == JobState::Queued && world.row.epoch >= self.rules.leases
    }

    /// From where no steps of this kind lead to an end.
    fn stuck(
        &self,
        is_taken: impl Fn(bool) -> bool,
        is_end: impl Fn(&World) -> bool,
    ) -> Vec<&World> {
        let ends = self.worlds.iter().map(|world| is_end(world.as_ref()));
        let mut ends: Vec<bool> = ends.collect();
        let mut next: Vec<usize> = (0..ends.len()).filter(|at| ends[*at]).collect();
        while let Some(to) = next.pop() {
            for (from, is_of_silent) in &self.before[to] {
                if is_taken(*is_of_silent) && !ends[*from] {
                    ends[*from] = true;
                    next.push(*from);
                }
            }
        }
        let all = self.worlds.iter().zip(ends);
        let stuck = all.filter(|(_, ends)| !ends);
        stuck.map(|(world, _)| world.as_ref()).collect()
    }
}

/// Whether it is neither a fault nor a wish: to come to an end, a job must need none.
fn comes_by_itself(action: Action) -> bool {
    match action {
        Action::Die(_) | Action::Crash(_) | Action::Lose(_) | Action::Silence(_) => false,
        Action::Look { asked, .. } => asked != Asked::Cancel,
        Action::Write(_) | Action::Hear { .. } | Action::End(_) => true,
    }
}

/// Whether it is a word or a deed of a node that is silent, and so may be gone for good.
fn is_of_silent(world: &World, action: Action) -> bool {
    let node = match action {
        Action::Hear { node, .. } | Action::End(node) => node,
        Action::Look { asked, .. } => match asked {
            Asked::By(node, _) => node,
            Asked::Reap(_) | Asked::Cancel => return false,
        },
        Action::Write(_)
        | Action::Die(_)
        | Action::Crash(_)
        | Action::Lose(_)
        | Action::Silence(_) => return false,
    };
    world.nodes[node].is_silent
}
