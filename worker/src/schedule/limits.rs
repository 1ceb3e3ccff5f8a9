//! What the schedule may use, and what of it one channel may.

/// What the schedule may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Deliveries in flight of one channel.
    pub per_channel: usize,
    /// Deliveries in flight over all.
    pub in_flight: usize,
    /// Deliveries in memory.
    pub rows: usize,
    /// Bytes they take.
    pub bytes: usize,
}

impl Limits {
    /// 4096 deliveries in 16 MiB, and so many in flight of each channel and over all.
    pub fn new(per_channel: usize, in_flight: usize) -> Self {
        Self { per_channel, in_flight, rows: 4096, bytes: 16 << 20 }
    }

    /// Deliveries in flight of one channel while `free` more may be over all, whatever it does; and if it
    /// answers at once.
    pub(super) fn share(self, free: usize) -> (usize, usize) {
        let per_channel = self.per_channel.max(1);
        let any = (free / 4).clamp(1, per_channel);
        (any, if free > self.reserve() { per_channel } else { any })
    }

    /// What of the deliveries in flight is left to channels that do not answer at once: of many a 32nd, of few
    /// four, of very few a quarter.
    fn reserve(self) -> usize {
        (self.in_flight / 32).max((self.in_flight / 4).min(4))
    }
}
