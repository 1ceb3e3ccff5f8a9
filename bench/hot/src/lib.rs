//! The hot paths that are pure, as operations with everything they need prepared: what an event costs that is
//! matched, what a delivery costs that is rendered, signed and logged, what a secret costs.
//!
//! `cargo bench -p klaxon-hot` says how long each takes. The program of the same name counts their instructions.

mod matching;
mod rendering;
mod securing;

/// Something that is done once for each event, delivery, row or secret.
pub struct Operation {
    /// Its name, in `bench/budget.toml` too.
    pub name: &'static str,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

impl Operation {
    fn new(name: &'static str, run: impl FnMut() + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// All of them.
///
/// # Errors
/// What they are prepared of is not valid any more.
pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let mut all = matching::operations()?;
    all.extend(rendering::operations()?);
    all.extend(securing::operations()?);
    Ok(all)
}
