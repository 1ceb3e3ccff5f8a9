//! How much is measured: `QUICK=1` shows in minutes that everything runs and roughly how fast.

/// The full measure, or the quick one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    quick: bool,
}

impl Plan {
    /// As the environment's `QUICK` says.
    pub fn of_environment() -> Self {
        Self { quick: std::env::var("QUICK").is_ok_and(|quick| !quick.is_empty() && quick != "0") }
    }

    /// Whether it is the quick one.
    pub fn is_quick(self) -> bool {
        self.quick
    }

    /// One of the two.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Rounds of what takes seconds; shorter things take a multiple of it.
    pub fn rounds(self) -> usize {
        self.pick(1, 3)
    }
}
