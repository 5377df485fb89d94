//! Which nodes are alive, and under which number this one tells. A node whose lease ran out may have been taken for
//! dead: it goes on as another one, since what is told under the old number would be forgotten.

use std::{
    collections::{HashMap, HashSet},
    mem,
};

use tokio::time::Instant;

use super::{
    super::{NodeId, Nodes as KnownNodes, OtherNode},
    store::{LEASE, Leases},
};

/// Nodes that were taken for dead, and whose late words are ignored.
const MAX_DEAD: usize = 1_024;

/// What a renewal of this node's lease tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Who is not alive any more.
    pub(super) gone: Vec<NodeId>,
    /// Whether this node may have been taken for dead itself.
    pub(super) late: bool,
    /// Whether Redis has forgotten a lease that had not run out, and so perhaps all the rest.
    pub(super) forgotten: bool,
}

/// This node among the others.
#[derive(Default)]
pub(super) struct Nodes {
    incarnation: u64,
    renewed: Option<Instant>,
    /// How often the lease was renewed, as far as is known.
    times: u64,
    /// Whether the number is a new one, and the others have not been told who is here.
    late: bool,
    /// The others that are alive, with how often they have been missing.
    alive: HashMap<u64, u32>,
    dead: HashSet<u64>,
}

impl Nodes {
    /// A node that tells under this number at first.
    pub(super) fn new(incarnation: u64) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// The number under which this node tells now.
    pub(super) fn incarnation(&mut self) -> u64 {
        if self.renewed.is_some_and(|at| at.elapsed() > LEASE) {
            self.renewed = None;
            self.times = 0;
            self.late = true;
            self.incarnation = self.incarnation.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        self.incarnation
    }

    /// The others that are alive.
    pub(super) fn alive(&self) -> Vec<u64> {
        self.alive.keys().copied().collect()
    }

    /// This node and the others, for people to look at.
    pub(super) fn known(&mut self) -> KnownNodes {
        let own = Some(NodeId(self.incarnation()));
        let others = self.alive.iter().map(|(&id, &missed)| OtherNode { id: NodeId(id), late: missed > 0 });
        let mut others: Vec<_> = others.collect();
        others.sort_unstable();
        KnownNodes { own, others }
    }

    /// Whether a node was taken for dead.
    pub(super) fn is_dead(&self, incarnation: u64) -> bool {
        self.dead.contains(&incarnation)
    }

    /// The lease was renewed.
    pub(super) fn renewed(&mut self, leases: &Leases) -> Renewed {
        // The answer may have come too late as well.
        let own = self.incarnation();
        let late = mem::take(&mut self.late);
        // Renewals without an answer count as well, so there are more each time.
        let forgotten = leases.times <= mem::replace(&mut self.times, leases.times);
        self.renewed = Some(Instant::now());
        for missed in self.alive.values_mut() {
            *missed += 1;
        }
        self.alive.extend(leases.live.iter().filter(|node| **node != own).map(|node| (*node, 0)));
        // Once may be a Redis that came back a moment ago.
        let gone: Vec<u64> = self.alive.extract_if(|_, missed| *missed > 1).map(|(node, _)| node).collect();
        if self.dead.len() > MAX_DEAD {
            self.dead.clear();
        }
        self.dead.extend(&gone);
        Renewed { gone: gone.into_iter().map(NodeId).collect(), late, forgotten }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_gone_before_its_time_was_forgotten() {
        let mut nodes = Nodes::new(1);
        let mut renewed = |times| nodes.renewed(&Leases { times, live: vec![1] });
        assert_eq!(renewed(1), Renewed::default());
        advance(LEASE / 3).await;
        assert_eq!(renewed(2), Renewed::default());
        advance(LEASE * 2 / 3).await;
        assert_eq!(renewed(4), Renewed::default(), "one of them was not answered");
        advance(LEASE / 3).await;
        assert_eq!(renewed(2), Renewed { forgotten: true, ..Renewed::default() });
        advance(2 * LEASE).await;
        assert_eq!(renewed(1), Renewed { late: true, ..Renewed::default() }, "it has run out");
    }
}
