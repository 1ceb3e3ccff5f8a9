//! What a template may be made of, so that the steps it may take bound its time and memory.
//!
//! A step is charged for the items it visits, not for what those hold, and values share what they hold: a list of a list
//! twice, thirty times over, is written in a line and has a billion items. So a template is not given the means to build
//! upon what it has built: it names no value but the items of a loop and text, makes no list of values, and adds and
//! multiplies only so often.

use std::sync::LazyLock;

use minijinja::machinery::{Instruction, Instructions, get_compiled_template};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Template, UndefinedBehavior, Value};

/// Steps a template may take: some hundred rounds of a loop.
const FUEL: u64 = 10_000;
/// Bytes of a payload from which on it may take fewer, as each may take longer.
const PAYLOAD: u64 = 16 * 1024;
/// The fewest.
const LEAST: u64 = 500;
/// Numbers that `range` counts at most.
const RANGE: usize = 1_000;
/// Sums and products, which copy what they are made of where that is lists.
const SUMS: usize = 16;

/// What all templates are worked out in.
static COMMON: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_recursion_limit(50);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    // Each kind escapes what it sends, as it does any other text.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    for builds in ["dict", "namespace", "debug"] {
        environment.remove_global(builds);
    }
    for builds in ["batch", "slice", "zip", "chain", "groupby"] {
        environment.remove_filter(builds);
    }
    environment.add_function("range", range);
    environment
});

/// In which a template over so many bytes runs out of steps before it runs long, and reads no file.
pub fn environment(payload_bytes: usize) -> Environment<'static> {
    let mut environment = COMMON.clone();
    let bytes = u64::try_from(payload_bytes).unwrap_or(u64::MAX).max(PAYLOAD);
    environment.set_fuel(Some((FUEL * PAYLOAD / bytes).max(LEAST)));
    environment
}

/// As minijinja's, for fewer.
fn range(lower: isize, upper: Option<isize>, step: Option<isize>) -> Result<Value, Error> {
    let numbers = minijinja::functions::range(lower, upper, step)?;
    if numbers.len().is_some_and(|count| count > RANGE) {
        return Err(Error::new(ErrorKind::InvalidOperation, "range has too many elements"));
    }
    Ok(numbers)
}

/// What a template is made of that it may not be.
pub fn objection(template: &Template<'_, '_>) -> Option<String> {
    let instructions = &get_compiled_template(template).instructions;
    let mut sums = 0;
    for at in 0.. {
        let instruction = instructions.get(at)?;
        sums += usize::from(matches!(instruction, Instruction::Add | Instruction::Mul));
        let what = match instruction {
            Instruction::BuildList(Some(_)) | Instruction::BuildTuple(_) | Instruction::BuildMap(_) => {
                "lists and maps are of constants only"
            }
            Instruction::StoreLocal(_) if !is_item_or_text(instructions, at) => {
                "no value is named by set or with, but text between set and endset"
            }
            // Other arguments than these it puts where items were.
            Instruction::ApplyFilter("map", count, _)
                if *count != Some(2) || !follows_constant(instructions, at) =>
            {
                "map takes a filter or an attribute"
            }
            _ if sums > SUMS => "there are more than 16 sums and products",
            _ => continue,
        };
        return Some(format!("line {}: {what}", instructions.get_line(at).unwrap_or(1)));
    }
    None
}

/// Whether what is stored is an item of a loop, or text that was written between `set` and `endset`.
fn is_item_or_text(instructions: &Instructions<'_>, at: u32) -> bool {
    let mut before = (0..at).rev().map_while(|at| instructions.get(at));
    let source = before.find(|instruction| {
        !matches!(instruction, Instruction::StoreLocal(_) | Instruction::UnpackList(_) | Instruction::DupTop)
    });
    matches!(source, Some(Instruction::Iterate(_) | Instruction::EndCapture))
}

fn follows_constant(instructions: &Instructions<'_>, at: u32) -> bool {
    at.checked_sub(1).is_some_and(|at| matches!(instructions.get(at), Some(Instruction::LoadConst(_))))
}
