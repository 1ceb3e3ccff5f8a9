//! How long the hot paths take.

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut operation in klaxon_hot::operations().expect("they are prepared") {
        criterion.bench_function(operation.name, |bencher| bencher.iter(|| (operation.run)()));
    }
    criterion.final_summary();
}
