//! Captured graphs per symbol binding and addresses, replayed as they are.
//!
//! Generic over the graph, so that the bookkeeping needs no driver.

/// Buckets that are kept; the one unused for longest goes.
const BUCKETS_MAX: usize = 64;

/// Graphs of an instance.
#[derive(Debug)]
pub(super) struct Buckets<G> {
    segments: usize,
    buckets: Vec<Bucket<G>>,
    clock: u64,
}

/// What one binding has captured.
#[derive(Debug)]
struct Bucket<G> {
    table: Vec<i64>,
    addresses: Vec<u64>,
    used: u64,
    slots: Vec<Slot<G>>,
}

/// State of a segment in a bucket. A segment that comes a second time is
/// worth capturing: shapes that are seen once are not.
#[derive(Debug)]
pub(super) enum Slot<G> {
    New,
    Seen,
    Captured(G),
}

impl<G> Buckets<G> {
    pub(super) fn new(segments: usize) -> Buckets<G> {
        Buckets { segments, buckets: Vec::new(), clock: 0 }
    }

    /// Forgets everything: memory has moved.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// The slot of a segment under symbol values and the addresses of what lies outside the instance's block.
    pub(super) fn slot(
        &mut self,
        table: &[i64],
        addresses: &[u64],
        segment: usize,
    ) -> &mut Slot<G> {
        self.clock += 1;
        let fits = |b: &Bucket<G>| b.table == table && b.addresses == addresses;
        let at = match self.buckets.iter().position(fits) {
            Some(at) => at,
            None => self.add(table, addresses),
        };
        let bucket = &mut self.buckets[at];
        bucket.used = self.clock;
        &mut bucket.slots[segment]
    }

    fn add(&mut self, table: &[i64], addresses: &[u64]) -> usize {
        if self.buckets.len() >= BUCKETS_MAX {
            let oldest = (0..self.buckets.len()).min_by_key(|b| self.buckets[*b].used);
            oldest.into_iter().for_each(|b| drop(self.buckets.swap_remove(b)));
        }
        self.buckets.push(Bucket {
            table: table.to_vec(),
            addresses: addresses.to_vec(),
            used: self.clock,
            slots: (0..self.segments).map(|_| Slot::New).collect(),
        });
        self.buckets.len() - 1
    }

    /// Graphs that exist.
    pub(super) fn captured(&self) -> usize {
        let slots = self.buckets.iter().flat_map(|b| &b.slots);
        slots.filter(|s| matches!(s, Slot::Captured(_))).count()
    }
}
