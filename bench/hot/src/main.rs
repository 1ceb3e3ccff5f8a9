//! Counts the instructions of the hot paths and holds them against `bench/budget.toml`: a count is the same on a
//! busy machine, so a regression shows without noise.
//!
//! `klaxon-hot` checks all; `klaxon-hot NAME TIMES` does one operation so often, under callgrind. With
//! `KLAXON_BLESS=1` it writes what it counted.

mod budget;
mod callgrind;

use std::path::Path;

use budget::Budget;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut operations = klaxon_hot::operations()?;
    if let [name, times] = &arguments[..] {
        let operation = operations.iter_mut().find(|operation| operation.name == name);
        let Some(operation) = operation else { anyhow::bail!("there is no {name}") };
        (0..times.parse::<u64>()?).for_each(|_| (operation.run)());
        return Ok(());
    }
    anyhow::ensure!(arguments.is_empty(), "klaxon-hot [NAME TIMES]");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../budget.toml");
    let mut budget = Budget::read(&path)?;
    let mut counted = Vec::new();
    for operation in &operations {
        counted.push((operation.name, callgrind::instructions(operation.name)?));
    }
    if std::env::var_os("KLAXON_BLESS").is_some() {
        budget.instructions = counted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        return budget.write(&path);
    }
    println!("{:<18} {:>10} {:>10} {:>8}", "instructions", "budget", "counted", "growth");
    let mut problems = Vec::new();
    for (name, count) in counted {
        match budget.judge(name, count) {
            Ok(line) => println!("{line}"),
            Err(problem) => {
                println!("{problem}");
                problems.push(name);
            }
        }
    }
    problems.extend(budget.strangers(&operations.iter().map(|operation| operation.name).collect::<Vec<_>>()));
    anyhow::ensure!(
        problems.is_empty(),
        "over the budget, or not as bench/budget.toml has it: {}. Where a change means it: make budget KLAXON_BLESS=1",
        problems.join(", ")
    );
    Ok(())
}
