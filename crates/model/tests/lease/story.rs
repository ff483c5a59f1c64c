//! What can happen next, and what must never have happened.

use crate::world::{Asked, End, Held, Looked, Message, Node, Phase, Rule, Rules, World};
use stateright::{Model, Property};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A server reads the row for a message.
    Look { server: usize, asked: Asked },
    /// It writes, if the row is as it was, and answers.
    Write(usize),
    /// It dies in between.
    Die(usize),
    /// A node hears an answer.
    Hear { node: usize, message: Message },
    /// The command ends by itself.
    End(usize),
    /// The process of a node dies, and another takes its place.
    Crash(usize),
    /// A sandbox dies with its supervisor.
    Lose(usize),
    /// For a lease, no database hears of a node.
    Silence(usize),
}

impl Rules {
    /// What the process of a node would send now.
    fn due(&self, node: &Node) -> Vec<Message> {
        let mut due = Vec::new();
        match node.held {
            None => due.push(Message::Poll),
            Some(held) => match held.phase {
                Phase::Prepared => due.push(Message::Started { epoch: held.epoch }),
                Phase::Runs => {}
                Phase::Ended(end) => due.push(Message::Finished {
                    epoch: held.epoch,
                    attempt: held.attempt,
                    end,
                }),
            },
        }
        due.push(Message::Heartbeat {
            has: node.held.map(|held| held.epoch),
        });
        due
    }

    fn of_nodes(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, node) in world.nodes.iter().enumerate() {
            if node.held.is_some_and(|held| held.phase == Phase::Runs) {
                actions.push(Action::End(at));
            }
            if world.faults == 0 {
                continue;
            }
            if node.held.is_some() {
                actions.push(Action::Crash(at));
            }
            if !node.is_silent {
                actions.push(Action::Silence(at));
            }
            if node.held.is_some_and(|held| held.lives) {
                actions.push(Action::Lose(at));
            }
        }
    }

    fn of_servers(&self, world: &World, actions: &mut Vec<Action>) {
        for (server, looked) in world.servers.iter().enumerate() {
            if looked.is_some() {
                actions.extend([Action::Write(server), Action::Die(server)]);
                continue;
            }
            // They are alike: it does not matter which of two that have nothing to do takes it.
            if world.servers[..server].contains(&None) {
                continue;
            }
            let asked = world.messages.iter().filter(|(_, m)| m.is_for_server());
            for (node, message) in asked {
                let asked = Asked::By(*node, *message);
                actions.push(Action::Look { server, asked });
            }
            let silent = (0..self.nodes).filter(|node| world.nodes[*node].is_silent);
            let wish = (self.cancels && !world.was_canceled).then_some(Asked::Cancel);
            let asked = silent.map(Asked::Reap).chain(wish);
            actions.extend(asked.map(|asked| Action::Look { server, asked }));
        }
    }

    /// Each node says what is due: what is never heard was as good as not sent.
    fn send(&self, world: &mut World) {
        for (at, node) in world.nodes.iter().enumerate() {
            let due = self.due(node).into_iter().map(|message| (at, message));
            world.messages.extend(due);
        }
    }

    /// A node acts on an answer.
    fn act_on(&self, world: &mut World, at: usize, message: Message) {
        let is_fenced = self.is_fenced();
        let node = &mut world.nodes[at];
        match (message, &mut node.held) {
            // A fence is counted from the last renewal and not from the start of what it is around: whoever has
            // not been heard for a lease starts nothing.
            (Message::Leased { .. } | Message::MayRun { .. }, _) if is_fenced && node.is_silent => {
            }
            // It takes no second lease of a job that it has, and none that it has had.
            (Message::Leased { epoch, attempt }, held @ None) => {
                *held = Some(Held {
                    epoch,
                    attempt,
                    phase: Phase::Prepared,
                    lives: true,
                });
            }
            (Message::MayRun { epoch }, Some(held))
                if held.epoch == epoch && held.phase == Phase::Prepared =>
            {
                // `job::not_made`: what died before its command was let go is told as lost.
                held.phase = match held.lives {
                    true => Phase::Runs,
                    false => Phase::Ended(End::Lost),
                };
                world.runs += u8::from(held.lives);
            }
            (Message::MustEnd { epoch }, Some(held)) if held.epoch == epoch => {
                if let Phase::Prepared | Phase::Runs = held.phase {
                    held.phase = Phase::Ended(End::Canceled);
                    held.lives = false;
                }
            }
            // It is somebody else's, or nobody's: what is here ends, and so does the report.
            (Message::Stale { epoch } | Message::Taken { epoch }, Some(held))
                if held.epoch == epoch =>
            {
                node.held = None;
            }
            _ => {}
        }
    }

    /// Only a job that may be started again is given to another node while its own is silent.
    fn is_fenced(&self) -> bool {
        self.without != Some(Rule::Fences) && self.attempts > 1
    }

    /// A server reads the row. If nothing is to be written it answers at once: that is one look at the database.
    fn look(&self, world: &mut World, server: usize, asked: Asked) {
        world.was_canceled |= asked == Asked::Cancel;
        let (next, answer) = self.judge(asked, world);
        if next == world.row {
            answered(world, asked, answer);
        } else {
            world.servers[server] = Some(Looked {
                asked,
                next,
                answer,
            });
        }
    }

    /// Compare and set: what others have read is worthless from here on, and they do it over, by a message that
    /// is heard again.
    fn write(&self, world: &mut World, server: usize) {
        let Some(looked) = world.servers[server].take() else {
            return;
        };
        let was_over = world.row.state.outcome().is_some();
        let is_over = looked.next.state.outcome().is_some();
        world.outcomes += u8::from(is_over && (!was_over || looked.next != world.row));
        world.row = looked.next;
        if self.without != Some(Rule::Comparison) {
            world.servers.fill(None);
        }
        answered(world, looked.asked, looked.answer);
    }

    fn silence(&self, world: &mut World, at: usize) {
        let fences = self.is_fenced();
        let node = &mut world.nodes[at];
        node.is_silent = true;
        // The supervisor's deadline is a renewal's, counted from when it was sent, so it comes first.
        if let Some(held) = node.held.as_mut().filter(|_| fences) {
            held.lives = false;
            if held.phase == Phase::Runs || held.phase == Phase::Prepared {
                held.phase = Phase::Ended(End::Lost);
            }
        }
    }
}

fn answered(world: &mut World, asked: Asked, answer: Option<Message>) {
    if let Asked::By(node, message) = asked {
        if matches!(message, Message::Heartbeat { .. }) {
            world.nodes[node].is_silent = false;
        }
        world.messages.extend(answer.map(|answer| (node, answer)));
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.world();
        self.send(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.of_nodes(world, actions);
        self.of_servers(world, actions);
        for (node, message) in &world.messages {
            if !message.is_for_server() {
                actions.push(Action::Hear {
                    node: *node,
                    message: *message,
                });
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Look { server, asked } => self.look(&mut world, server, asked),
            Action::Write(server) => self.write(&mut world, server),
            Action::Die(server) => world.servers[server] = None,
            Action::Hear { node, message } => {
                world.messages.remove(&(node, message));
                self.act_on(&mut world, node, message);
            }
            Action::End(node) => {
                if let Some(held) = &mut world.nodes[node].held {
                    held.phase = Phase::Ended(if held.lives {
                        End::Succeeded
                    } else {
                        End::Lost
                    });
                    held.lives = false;
                }
            }
            Action::Crash(node) => {
                world.faults -= 1;
                // Answers to the process that died are heard by nobody.
                world
                    .messages
                    .retain(|(to, message)| *to != node || message.is_for_server());
                // `recover::take_up`: what was not let go, or did not outlive the process, is told as lost.
                if let Some(held) = &mut world.nodes[node].held {
                    let goes_on = held.phase == Phase::Runs && held.lives;
                    if !goes_on && !matches!(held.phase, Phase::Ended(_)) {
                        held.phase = Phase::Ended(End::Lost);
                        held.lives = false;
                    }
                }
            }
            Action::Lose(node) => {
                world.faults -= 1;
                if let Some(held) = &mut world.nodes[node].held {
                    held.lives = false;
                }
            }
            Action::Silence(node) => {
                world.faults -= 1;
                self.silence(&mut world, node);
            }
        }
        self.send(&mut world);
        (world != *last).then_some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.row.epoch <= self.leases
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one outcome", |_, world: &World| world.outcomes <= 1),
            Property::always("in one place", |_: &Rules, world: &World| {
                let running = world.nodes.iter().filter_map(|node| node.held);
                running
                    .filter(|held| held.phase == Phase::Runs && held.lives)
                    .count()
                    <= 1
            }),
            Property::always("as often as allowed", |rules: &Rules, world: &World| {
                u32::from(world.runs) <= rules.attempts
            }),
            Property::always("what succeeded ran", |_, world: &World| {
                world
                    .row
                    .report
                    .is_none_or(|(_, end)| end != End::Succeeded)
                    || world.runs > 0
            }),
            Property::sometimes("it can succeed", |_, world: &World| {
                world
                    .row
                    .report
                    .is_some_and(|(_, end)| end == End::Succeeded)
            }),
            Property::sometimes("it can be lost", |rules: &Rules, world: &World| {
                let outcome = world.row.state.outcome();
                rules.attempts > 1 || outcome.is_some_and(|outcome| outcome.name() == "lost")
            }),
            Property::sometimes("all can end and be forgotten", |_, world: &World| {
                world.row.state.outcome().is_some()
                    && world.nodes.iter().all(|node| node.held.is_none())
            }),
        ]
    }
}
