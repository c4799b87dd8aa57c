//! Vector clocks: what each warp knows of the others (Flanagan and Freund, "FastTrack").
//!
//! Agents of a block are its warps and then its mbarriers, whose completed phases stand for the asynchronous
//! copies that arrived on them.

/// An agent's moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) agent: u32,
    pub(crate) time: u32,
}

/// The latest moment of each agent that is known to lie before now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    times: Vec<u32>,
}

impl Clock {
    #[inline(always)]
    pub(crate) fn time(&self, agent: u32) -> u32 {
        self.times.get(agent as usize).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, agent: u32, time: u32) {
        if self.times.len() <= agent as usize {
            self.times.resize(agent as usize + 1, 0);
        }
        self.times[agent as usize] = time;
    }

    /// Learns all that another clock knows.
    pub(crate) fn join(&mut self, other: &Clock) {
        if self.times.len() < other.times.len() {
            self.times.resize(other.times.len(), 0);
        }
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            *mine = (*mine).max(*theirs);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.times.clear();
    }

    /// Whether a moment lies before now.
    #[inline(always)]
    pub(crate) fn knows(&self, stamp: Stamp) -> bool {
        self.time(stamp.agent) >= stamp.time
    }
}
